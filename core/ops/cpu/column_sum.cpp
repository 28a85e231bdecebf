// Work per task: one group and 64 columns, all rows in order, so the result doesn't depend on the
// number of threads. Every element is read once. Blocks of 64 rows are summed first: the rounding
// error grows with the number of blocks, not of rows.
#include "core/ops/column_sum.h"

#include <algorithm>

namespace adagate {
namespace {

constexpr int64_t kColumns = 64, kRows = 64;

template <class T, class Out>
void sum_columns(const ColumnSumArgs& p, int64_t group, int64_t first) {
  using C = Compute<T>;
  int64_t begin = p.offsets ? p.offsets[group] : 0;
  int64_t end = p.offsets ? p.offsets[group + 1] : p.rows;
  int64_t width = std::min(kColumns, p.cols - first);
  const T* x = static_cast<const T*>(p.x) + first;
  const int64_t ld = p.ld ? p.ld : p.cols;
  C total[kColumns] = {};
  for (int64_t block = begin; block < end; block += kRows) {
    C part[kColumns] = {};
    int64_t stop = std::min(block + kRows, end);
    if (width == kColumns) {
      for (int64_t r = block; r < stop; ++r) {
        const T* row = x + r * ld;
#pragma omp simd
        for (int64_t c = 0; c < kColumns; ++c) part[c] += static_cast<C>(row[c]);
      }
    } else {
      for (int64_t r = block; r < stop; ++r) {
        const T* row = x + r * ld;
        for (int64_t c = 0; c < width; ++c) part[c] += static_cast<C>(row[c]);
      }
    }
    for (int64_t c = 0; c < kColumns; ++c) total[c] += part[c];
  }
  Out* out = static_cast<Out*>(p.out) + group * p.cols + first;
  for (int64_t c = 0; c < width; ++c) {
    C before = p.accumulate ? static_cast<C>(out[c]) : C{0};
    out[c] = static_cast<Out>(before + total[c]);
  }
}

}  // namespace

void launch(CpuStream&, const ColumnSumArgs& p) {
  int64_t chunks = (p.cols + kColumns - 1) / kColumns;
  int64_t tasks = p.groups * chunks;
  visit_floating(p.x_type, [&](auto t) {
    visit_floating(p.out_type, [&](auto o) {
#pragma omp parallel for schedule(static) if (p.rows * p.cols > (1 << 14))
      for (int64_t task = 0; task < tasks; ++task) {
        sum_columns<decltype(t), decltype(o)>(p, task / chunks, task % chunks * kColumns);
      }
    });
  });
}

}  // namespace adagate
