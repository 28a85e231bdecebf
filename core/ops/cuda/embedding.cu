// Embedding. Forward: a warp a row, packs of 16 bytes. Backward sorts the ids (stable_sort.h), so
// that the rows of one id are a run, in the order of i. Runs have any length, from one row to all;
// so the sorted rows are cut into stretches of 32, and a warp adds up those of one stretch and a
// tile of columns: runs inside of it go to the table at once, the parts of runs that go beyond it
// are kept, and a second kernel adds up the parts of each such run in order. Every row of dy is
// read once; the table's gradient is touched once per id that occurs.
//
// A forward id outside its table gives a row of NaN: a kernel can't throw, and a loss that is not a
// number is seen where a wrong one isn't. Backward leaves such an id out.
#include <algorithm>
#include <limits>

#include "core/device/cuda/check.h"
#include "core/ops/cuda/elements.h"
#include "core/ops/cuda/stable_sort.h"
#include "core/ops/embedding.h"

namespace adagate {
namespace {

using namespace cuda;

constexpr int kWarps = 4, kThreads = kWarps * kWarp;

template <class T, int kWidth>
__device__ inline void load_row(Compute<T> (&values)[kWidth], const void* table, int32_t id,
                                int64_t rows, int64_t cols, int column) {
  if (id >= 0 && id < rows) {
    load(values, static_cast<const T*>(table) + id * cols + column);
  } else {
#pragma unroll
    for (int k = 0; k < kWidth; ++k) values[k] = std::numeric_limits<Compute<T>>::quiet_NaN();
  }
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) embedding(EmbeddingArgs a) {
  using C = Compute<T>;
  const int lane = threadIdx.x % kWarp, cols = static_cast<int>(a.cols);
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (i >= a.n) return;
  const int32_t token = a.tokens[i], position = a.positions ? a.positions[i] : 0;
#pragma unroll 4
  for (int column = lane * kWidth; column < cols; column += kWarp * kWidth) {
    C value[kWidth];
    load_row<T>(value, a.table, token, a.vocabulary, a.cols, column);
    if (a.positions) {
      C more[kWidth];
      load_row<T>(more, a.position_table, position, a.context, a.cols, column);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) value[k] += more[k];
    }
    store(static_cast<T*>(a.y) + i * a.cols + column, value);
  }
}

// The sorted ids, and stretches of them.
struct Runs {
  const int32_t* id;     // [n], rising
  const int32_t* place;  // [n], of the row of dy
  int n;

  __device__ int begin(int stretch) const { return stretch * kWarp; }
  __device__ int end(int stretch) const {
    return begin(stretch) + kWarp < n ? begin(stretch) + kWarp : n;
  }
  // Whether the run that a stretch begins, ends with began before it, goes on after it.
  __device__ bool comes_in(int stretch) const {
    return stretch > 0 && id[begin(stretch)] == id[begin(stretch) - 1];
  }
  __device__ bool goes_on(int stretch) const {
    return end(stretch) < n && id[end(stretch) - 1] == id[end(stretch)];
  }
  __device__ bool starts_last(int stretch) const {
    return stretch == 0 || id[begin(stretch) - 1] != id[end(stretch) - 1];
  }
};

// Where sums go: the table's gradient, and two rows of parts per stretch: of the run that it begins
// with, and of the one that it ends with.
template <class C>
struct RunSums {
  void* dtable;
  DType type;
  bool accumulate;
  int64_t table_rows, cols;
  C* parts;

  __device__ C* part(int stretch, int which) const {
    return parts + (int64_t{2} * stretch + which) * cols;
  }
  template <int kWidth>
  __device__ void add(int32_t id, int column, C (&sum)[kWidth]) const {
    if (id >= table_rows) return;
    const int64_t at = id * cols + column;
    if (accumulate) {
      C before[kWidth];
      load_as(before, type, dtable, at);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sum[k] += before[k];
    }
    store_as(type, dtable, at, sum);
  }
};

// Which stretch and columns a warp has.
template <int kWidth>
struct Place {
  int stretch, column;

  __device__ explicit Place(int tiles) {
    const int64_t warp = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
    stretch = static_cast<int>(warp / tiles);
    column =
        (static_cast<int>(warp % tiles) * kWarp + static_cast<int>(threadIdx.x) % kWarp) * kWidth;
  }
};

template <class T, class C, int kWidth>
__global__ void __launch_bounds__(kThreads)
    add_runs(const T* dy, Runs runs, RunSums<C> to, int stretches, int tiles) {
  constexpr int kBatch = 4;  // rows that are read before they are added
  const Place<kWidth> place(tiles);
  if (place.stretch >= stretches) return;
  const int lane = threadIdx.x % kWarp;
  const int begin = runs.begin(place.stretch), count = runs.end(place.stretch) - begin;
  const int32_t my_id = lane < count ? runs.id[begin + lane] : -1;
  const int32_t my_place = lane < count ? runs.place[begin + lane] : 0;
  const bool comes_in = runs.comes_in(place.stretch), goes_on = runs.goes_on(place.stretch);
  const bool inside = place.column < to.cols;
  bool first_run = true;
  C sum[kWidth] = {};
  for (int p = 0; p < count; p += kBatch) {
    C values[kBatch][kWidth];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int64_t row = __shfl_sync(kAllLanes, my_place, (p + b) % kWarp);
      if (inside && p + b < count) load(values[b], dy + row * to.cols + place.column);
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int at = p + b;
      const int32_t id = __shfl_sync(kAllLanes, my_id, at % kWarp);
      const int32_t next = __shfl_sync(kAllLanes, my_id, (at + 1) % kWarp);
      if (!inside || at >= count) continue;
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sum[k] += values[b][k];
      const bool last = at + 1 == count;
      if (!last && id == next) continue;
      if (first_run && comes_in) {
        store(to.part(place.stretch, 0) + place.column, sum);
      } else if (last && goes_on) {
        store(to.part(place.stretch, 1) + place.column, sum);
      } else {
        to.add(id, place.column, sum);
      }
      first_run = false;
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sum[k] = 0;
    }
  }
}

// Adds up the parts of the run that a stretch starts and does not end.
template <class C, int kWidth>
__global__ void __launch_bounds__(kThreads)
    join_runs(Runs runs, RunSums<C> to, int stretches, int tiles) {
  const Place<kWidth> place(tiles);
  const int first = place.stretch;
  if (first >= stretches || place.column >= to.cols) return;
  if (!runs.goes_on(first) || !runs.starts_last(first)) return;
  const int32_t id = runs.id[runs.end(first) - 1];
  C sum[kWidth];
  load(sum, to.part(first, 1) + place.column);
#pragma unroll 4
  for (int s = first + 1; s < stretches && runs.id[runs.begin(s)] == id; ++s) {
    C part[kWidth];
    load(part, to.part(s, 0) + place.column);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sum[k] += part[k];
  }
  to.add(id, place.column, sum);
}

template <class T, class C, int kWidth>
void backward(CudaStream& stream, const EmbeddingBackwardArgs& a) {
  const auto stretches = static_cast<int>((a.n + kWarp - 1) / kWarp);
  const auto tiles = static_cast<int>((a.cols + kWarp * kWidth - 1) / (kWarp * kWidth));
  Scratch<int32_t> ids(stream, a.n), places(stream, a.n);
  Scratch<C> parts(stream, int64_t{2} * stretches * a.cols);
  sort_stably(stream, a.ids, a.n, static_cast<int32_t>(a.table_rows), ids.data(), places.data());
  const Runs runs{ids.data(), places.data(), static_cast<int>(a.n)};
  const RunSums<C> to{a.dtable, a.dtable_dtype, a.accumulate, a.table_rows, a.cols, parts.data()};
  const auto blocks = static_cast<unsigned>((int64_t{stretches} * tiles + kWarps - 1) / kWarps);
  ADAGATE_LAUNCH((add_runs<T, C, kWidth>), blocks, kThreads, 0, stream, static_cast<const T*>(a.dy),
                 runs, to, stretches, tiles);
  ADAGATE_LAUNCH((join_runs<C, kWidth>), blocks, kThreads, 0, stream, runs, to, stretches, tiles);
}

}  // namespace

void launch(CudaStream& stream, const EmbeddingArgs& a) {
  if (a.n == 0 || a.cols == 0) return;
  visit_floating(a.dtype, [&](auto type) {
    using T = decltype(type);
    visit_width<T>(packs(a.cols, sizeof(T), a.table, a.position_table, a.y), [&](auto width) {
      const auto blocks = static_cast<unsigned>((a.n + kWarps - 1) / kWarps);
      ADAGATE_LAUNCH((embedding<T, decltype(width)::value>), blocks, kThreads, 0, stream, a);
    });
  });
}

void launch(CudaStream& stream, const EmbeddingBackwardArgs& a) {
  if (a.cols == 0) return;
  if (!a.accumulate) {
    const auto bytes = static_cast<size_t>(a.table_rows * a.cols) * size_of(a.dtable_dtype);
    ADAGATE_CUDA_CHECK(cudaMemsetAsync(a.dtable, 0, bytes, stream.handle()));
  }
  if (a.n == 0) return;
  const bool packed =
      packs(a.cols, std::min(size_of(a.dtype), size_of(a.dtable_dtype)), a.dy, a.dtable);
  visit_floating(a.dtype, [&](auto type) {
    using T = decltype(type);
    visit_width<T>(packed, [&](auto width) {
      if (a.dtable_dtype == DType::f64) {
        backward<T, double, decltype(width)::value>(stream, a);
      } else {
        backward<T, float, decltype(width)::value>(stream, a);
      }
    });
  });
}

}  // namespace adagate
