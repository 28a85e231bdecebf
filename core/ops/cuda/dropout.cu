// Dropout with bias and residual. A warp takes a stretch of a row, whose key it makes once (Philox
// is dear), each lane packs of 16 bytes; x, residual and y pass once. Backward goes by slabs of
// rows (column_sums.h), so that dbias falls out of the pass that writes dx.
#include "core/ops/cuda/column_sums.h"
#include "core/ops/dropout.h"

namespace adagate {
namespace {

using namespace cuda;

constexpr int64_t kBlocksWanted = 2048;
constexpr int kPacks = 4;  // of a lane, side by side with those of the other lanes

// Columns of a warp.
template <int kWidth>
constexpr int kStretch = kWarp* kPacks* kWidth;

// The factors of one row; without dropout they are 1.
class RowFactors {
 public:
  __device__ RowFactors(const DropoutMask& mask, const Rng& rng, const int64_t* addresses,
                        int64_t row)
      : mask_(mask),
        drops_(addresses != nullptr),
        key_(addresses ? rng.row_key(static_cast<uint64_t>(addresses[row])) : 0) {}

  template <class C, int kWidth>
  __device__ void apply(C (&values)[kWidth], int column) const {
    if (!drops_) return;
#pragma unroll
    for (int k = 0; k < kWidth; ++k)
      values[k] *= static_cast<C>(mask_.factor(key_, static_cast<uint32_t>(column + k)));
  }

 private:
  DropoutMask mask_;
  bool drops_;
  uint32_t key_;
};

template <class T, int kWidth>
__global__ void __launch_bounds__(kSumThreads) dropout(DropoutArgs a) {
  using C = Compute<T>;
  const int lane = threadIdx.x % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kSumWarps + threadIdx.x / kWarp;
  if (row >= a.rows) return;
  const int cols = static_cast<int>(a.cols);
  const int64_t start = row * a.cols;
  const RowFactors factors(a.mask, a.rng, a.addresses, row);
  for (int first = blockIdx.y * kStretch<kWidth>; first < cols;
       first += gridDim.y * kStretch<kWidth>) {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const int column = first + (i * kWarp + lane) * kWidth;
      if (column >= cols) continue;
      C value[kWidth], more[kWidth];
      load(value, static_cast<const T*>(a.x) + start + column);
      if (a.bias) {
        load(more, static_cast<const T*>(a.bias) + column);
#pragma unroll
        for (int k = 0; k < kWidth; ++k) value[k] += more[k];
      }
      factors.apply(value, column);
      if (a.residual) {
        load(more, static_cast<const T*>(a.residual) + start + column);
#pragma unroll
        for (int k = 0; k < kWidth; ++k) value[k] += more[k];
      }
      store(static_cast<T*>(a.y) + start + column, value);
    }
  }
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kSumThreads)
    dropout_backward(DropoutBackwardArgs a, Slabs slabs, int tiles, Compute<T>* partial,
                     int64_t stride) {
  using C = Compute<T>;
  const SlabTile at = slab_tile(slabs, tiles);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int cols = static_cast<int>(a.cols);
  const int first = at.tile * kStretch<kWidth> + lane * kWidth;
  C sums[kPacks][kWidth] = {};
  for (int64_t row = at.slab.begin + warp; row < at.slab.end; row += kSumWarps) {
    const RowFactors factors(a.mask, a.rng, a.addresses, row);
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const int column = first + i * kWarp * kWidth;
      if (column >= cols) continue;
      C value[kWidth];
      load(value, static_cast<const T*>(a.dy) + row * a.cols + column);
      factors.apply(value, column);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sums[i][k] += value[k];
      if (!a.dx) continue;
      T* dx = static_cast<T*>(a.dx) + row * a.cols + column;
      if (a.accumulate_dx) {
        C before[kWidth];
        load(before, dx);
#pragma unroll
        for (int k = 0; k < kWidth; ++k) value[k] += before[k];
      }
      store(dx, value);
    }
  }
  if (!partial || !add_up_warps(sums)) return;
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    const int column = first + i * kWarp * kWidth;
    if (column < cols) store(partial + at.number * stride + column, sums[i]);
  }
}

template <class T, int kWidth>
void forward(CudaStream& stream, const DropoutArgs& a) {
  const int64_t stretches = (a.cols + kStretch<kWidth> - 1) / kStretch<kWidth>;
  const dim3 grid(static_cast<unsigned>((a.rows + kSumWarps - 1) / kSumWarps),
                  static_cast<unsigned>(std::min<int64_t>(stretches, 65535)));
  ADAGATE_LAUNCH((dropout<T, kWidth>), grid, kSumThreads, 0, stream, a);
}

template <class T, int kWidth>
void backward(CudaStream& stream, const DropoutBackwardArgs& a) {
  using C = Compute<T>;
  const int64_t tiles = (a.cols + kStretch<kWidth> - 1) / kStretch<kWidth>;
  const Slabs slabs = cut_rows(a.rows, std::max<int64_t>(1, kBlocksWanted / tiles));
  const int64_t stride = partial_stride(a.cols);
  Scratch<C> partial(stream, a.dbias ? std::max<int64_t>(1, slabs.most) * stride : 1);
  if (a.rows > 0) {
    ADAGATE_LAUNCH((dropout_backward<T, kWidth>), static_cast<unsigned>(slabs.most * tiles),
                   kSumThreads, 0, stream, a, slabs, static_cast<int>(tiles),
                   a.dbias ? partial.data() : nullptr, stride);
  }
  finish_column_sums(stream, slabs, partial.data(), stride, a.cols,
                     {a.dbias, a.dbias_dtype, a.accumulate_dbias});
}

}  // namespace

void launch(CudaStream& stream, const DropoutArgs& a) {
  if (a.rows == 0 || a.cols == 0) return;
  visit_floating(a.dtype, [&](auto type) {
    using T = decltype(type);
    visit_width<T>(packs(a.cols, sizeof(T), a.x, a.bias, a.residual, a.y),
                   [&](auto width) { forward<T, decltype(width)::value>(stream, a); });
  });
}

void launch(CudaStream& stream, const DropoutBackwardArgs& a) {
  if (a.cols == 0) return;
  visit_floating(a.dtype, [&](auto type) {
    using T = decltype(type);
    visit_width<T>(packs(a.cols, sizeof(T), a.dy, a.dx),
                   [&](auto width) { backward<T, decltype(width)::value>(stream, a); });
  });
}

}  // namespace adagate
