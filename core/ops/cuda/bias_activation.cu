// Bias and activation. A block takes a slab of rows of one group and a tile of columns
// (column_sums.h), so that a lane keeps its biases in registers and the group is looked up once;
// h and y, or h, dy and dh, pass once, and dbias falls out of backward's pass.
#include "core/ops/bias_activation.h"
#include "core/ops/cuda/column_sums.h"
#include "core/ops/cuda/quick_float.h"

namespace adagate {
namespace {

using namespace cuda;

constexpr int64_t kBlocksWanted = 4096;

// What a block of these kernels does. A swiglu row is two halves, worked on together: `width` and
// tiles are of one of them.
struct Work {
  Slabs slabs;
  int width = 0, tiles = 0;
};

template <int kWidth>
Work work_of(const BiasActivationArgs& p) {
  const int64_t width = p.activation == Activation::swiglu ? p.cols / 2 : p.cols;
  const int64_t tiles = (width + kWarp * kWidth - 1) / (kWarp * kWidth);
  const int64_t slabs = std::max<int64_t>(1, kBlocksWanted / std::max<int64_t>(1, tiles));
  return {cut_rows(p.rows, slabs, p.offsets, p.groups), static_cast<int>(width),
          static_cast<int>(tiles)};
}

template <int kWidth, class C>
__device__ inline void load_bias(C (&bias)[kWidth], const BiasActivationArgs& p, int64_t group,
                                 int column) {
  if (p.bias) {
    load_as(bias, p.bias_type, p.bias, group * p.cols + column);
  } else {
#pragma unroll
    for (int k = 0; k < kWidth; ++k) bias[k] = 0;
  }
}

template <class F, class T, int kWidth>
__global__ void __launch_bounds__(kSumThreads) bias_activation(BiasActivationArgs p, Work work) {
  using C = Compute<T>;
  const SlabTile at = slab_tile(work.slabs, work.tiles);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int column = (at.tile * kWarp + lane) * kWidth;
  if (at.slab.group < 0 || column >= work.width) return;
  C bias[kWidth];
  load_bias(bias, p, at.slab.group, column);
#pragma unroll 4
  for (int64_t row = at.slab.begin + warp; row < at.slab.end; row += kSumWarps) {
    C value[kWidth];
    load(value, static_cast<const T*>(p.h) + row * p.cols + column);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) value[k] = activated<F>(value[k] + bias[k]);
    store(static_cast<T*>(p.y) + row * p.cols + column, value);
  }
}

template <class F, class T, int kWidth>
__global__ void __launch_bounds__(kSumThreads) bias_gated(BiasActivationArgs p, Work work) {
  using C = Compute<T>;
  const SlabTile at = slab_tile(work.slabs, work.tiles);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int column = (at.tile * kWarp + lane) * kWidth;
  if (at.slab.group < 0 || column >= work.width) return;
  C gate_bias[kWidth], up_bias[kWidth];
  load_bias(gate_bias, p, at.slab.group, column);
  load_bias(up_bias, p, at.slab.group, work.width + column);
#pragma unroll 2
  for (int64_t row = at.slab.begin + warp; row < at.slab.end; row += kSumWarps) {
    const T* h = static_cast<const T*>(p.h) + row * p.cols + column;
    C gate[kWidth], up[kWidth];
    load(gate, h);
    load(up, h + work.width);
#pragma unroll
    for (int k = 0; k < kWidth; ++k)
      gate[k] = activated<F>(gate[k] + gate_bias[k]) * (up[k] + up_bias[k]);
    store(static_cast<T*>(p.y) + row * work.width + column, gate);
  }
}

// to (+)= values
template <class T, int kWidth, class C>
__device__ inline void put(T* to, C (&values)[kWidth], bool accumulate) {
  if (accumulate) {
    C before[kWidth];
    load(before, to);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) values[k] += before[k];
  }
  store(to, values);
}

template <class F, class T, int kWidth>
__global__ void __launch_bounds__(kSumThreads)
    bias_activation_backward(BiasActivationBackwardArgs q, Work work, Compute<T>* partial,
                             int64_t stride) {
  using C = Compute<T>;
  const BiasActivationArgs& p = q.forward;
  const SlabTile at = slab_tile(work.slabs, work.tiles);
  if (at.slab.group < 0) return;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int column = (at.tile * kWarp + lane) * kWidth;
  C sums[1][kWidth] = {};
  if (column < work.width) {
    C bias[kWidth];
    load_bias(bias, p, at.slab.group, column);
#pragma unroll 2
    for (int64_t row = at.slab.begin + warp; row < at.slab.end; row += kSumWarps) {
      const int64_t start = row * p.cols + column;
      C h[kWidth], d[kWidth];
      load(h, static_cast<const T*>(p.h) + start);
      load(d, static_cast<const T*>(q.dy) + start);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        d[k] *= slope<F>(h[k] + bias[k]);
        sums[0][k] += d[k];
      }
      if (q.dh) put(static_cast<T*>(q.dh) + start, d, q.accumulate_dh);
    }
  }
  if (partial && add_up_warps(sums) && column < work.width)
    store(partial + at.number * stride + column, sums[0]);
}

template <class F, class T, int kWidth>
__global__ void __launch_bounds__(kSumThreads)
    bias_gated_backward(BiasActivationBackwardArgs q, Work work, Compute<T>* partial,
                        int64_t stride) {
  using C = Compute<T>;
  const BiasActivationArgs& p = q.forward;
  const SlabTile at = slab_tile(work.slabs, work.tiles);
  if (at.slab.group < 0) return;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int column = (at.tile * kWarp + lane) * kWidth;
  C sums[2][kWidth] = {};
  if (column < work.width) {
    C gate_bias[kWidth], up_bias[kWidth];
    load_bias(gate_bias, p, at.slab.group, column);
    load_bias(up_bias, p, at.slab.group, work.width + column);
    for (int64_t row = at.slab.begin + warp; row < at.slab.end; row += kSumWarps) {
      const int64_t start = row * p.cols + column;
      C gate[kWidth], up[kWidth], d[kWidth];
      load(gate, static_cast<const T*>(p.h) + start);
      load(up, static_cast<const T*>(p.h) + start + work.width);
      load(d, static_cast<const T*>(q.dy) + row * work.width + column);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        const C g = gate[k] + gate_bias[k], u = up[k] + up_bias[k];
        gate[k] = d[k] * u * slope<F>(g);
        up[k] = d[k] * activated<F>(g);
        sums[0][k] += gate[k];
        sums[1][k] += up[k];
      }
      if (!q.dh) continue;
      T* dh = static_cast<T*>(q.dh) + start;
      put(dh, gate, q.accumulate_dh);
      put(dh + work.width, up, q.accumulate_dh);
    }
  }
  if (!partial || !add_up_warps(sums) || column >= work.width) return;
  store(partial + at.number * stride + column, sums[0]);
  store(partial + at.number * stride + work.width + column, sums[1]);
}

template <class F, class T, int kWidth>
void forward(CudaStream& stream, const BiasActivationArgs& p) {
  const Work work = work_of<kWidth>(p);
  const auto blocks = static_cast<unsigned>(work.slabs.most * work.tiles);
  if (p.activation == Activation::swiglu) {
    // Silu's twin alone: the other functors don't come with swiglu.
    if constexpr (std::is_same_v<F, activation::Silu>)
      ADAGATE_LAUNCH((bias_gated<F, T, kWidth>), blocks, kSumThreads, 0, stream, p, work);
  } else {
    ADAGATE_LAUNCH((bias_activation<F, T, kWidth>), blocks, kSumThreads, 0, stream, p, work);
  }
}

template <class F, class T, int kWidth>
void backward(CudaStream& stream, const BiasActivationBackwardArgs& q) {
  using C = Compute<T>;
  const BiasActivationArgs& p = q.forward;
  const Work work = work_of<kWidth>(p);
  const auto blocks = static_cast<unsigned>(work.slabs.most * work.tiles);
  const int64_t stride = partial_stride(p.cols);
  Scratch<C> scratch(stream, q.dbias ? std::max<int64_t>(1, work.slabs.most) * stride : 1);
  C* partial = q.dbias ? scratch.data() : nullptr;
  if (p.rows > 0) {
    if (p.activation == Activation::swiglu) {
      if constexpr (std::is_same_v<F, activation::Silu>)
        ADAGATE_LAUNCH((bias_gated_backward<F, T, kWidth>), blocks, kSumThreads, 0, stream, q, work,
                       partial, stride);
    } else {
      ADAGATE_LAUNCH((bias_activation_backward<F, T, kWidth>), blocks, kSumThreads, 0, stream, q,
                     work, partial, stride);
    }
  }
  finish_column_sums(stream, work.slabs, scratch.data(), stride, p.cols,
                     {q.dbias, q.dbias_type, q.accumulate_dbias});
}

// f(functor, element type, width)
template <class F, class... Pointers>
void visit_types(const BiasActivationArgs& p, F&& f, Pointers... pointers) {
  check(!p.bias || p.bias_type == p.type || (p.type == DType::bf16 && p.bias_type == DType::f32),
        "bias_activation: {} bias on {} values", name_of(p.bias_type), name_of(p.type));
  const int64_t width = p.activation == Activation::swiglu ? p.cols / 2 : p.cols;
  visit_activation(p.activation, [&](auto functor) {
    visit_floating(p.type, [&](auto type) {
      using T = decltype(type);
      visit_width<T>(packs(width, sizeof(T), p.h, p.bias, pointers...),
                     [&](auto w) { f(functor, type, w); });
    });
  });
}

}  // namespace

void launch(CudaStream& stream, const BiasActivationArgs& p) {
  if (p.rows == 0 || p.cols == 0) return;
  visit_types(
      p,
      [&](auto f, auto type, auto width) {
        forward<decltype(f), decltype(type), decltype(width)::value>(stream, p);
      },
      p.y);
}

void launch(CudaStream& stream, const BiasActivationBackwardArgs& q) {
  if (q.forward.cols == 0) return;
  visit_types(
      q.forward,
      [&](auto f, auto type, auto width) {
        backward<decltype(f), decltype(type), decltype(width)::value>(stream, q);
      },
      q.dy, q.dh);
}

}  // namespace adagate
