// Row movements of MoE layers. Work per thread: whole rows. Bytes: every row is read once and
// written once; the gathers are as fast as memory when a row is a few hundred bytes or more.
#include "core/ops/permute.h"

#include <algorithm>
#include <cstring>

#include "core/ops/cpu/vector_functions.h"

namespace adagate {
namespace {

constexpr int64_t kSortBlock = 1024;       // tokens per histogram
constexpr int64_t kSerialBytes = 1 << 16;  // below this one thread is faster

// out (+)= sum_i weight_i rows[row_i] of one token.
template <class T>
void sum_rows(const SumRowsArgs& a, int64_t t) {
  using C = Compute<T>;
  const T* rows = static_cast<const T*>(a.rows);
  const C* weight = static_cast<const C*>(a.weight);
  T* out = static_cast<T*>(a.out) + t * a.width;
  const int32_t first = a.row_start[t], last = a.row_start[t + 1];
  for_each_vector<C>(a.width, [=, &a](int64_t c, auto lanes) {
    Vec<C> sum{};
    if (a.accumulate) sum = lanes.load(out + c);
    for (int32_t i = first; i < last; ++i)
      sum += (weight ? weight[i] : C(1)) * lanes.load(rows + a.row[i] * a.width + c);
    lanes.store(out + c, sum);
  });
}

template <class T>
void sum_kernel(const SumRowsArgs& a) {
#pragma omp parallel for schedule(static) if (a.tokens * a.width > kSerialBytes / 4)
  for (int64_t t = 0; t < a.tokens; ++t) sum_rows<T>(a, t);
}

// One assignment's row: drow (+)= w dy, returns <dy, row>.
template <class T>
Compute<T> combine_backward_row(const T* dy, const T* row, Compute<T> w, T* drow, bool accumulate,
                                int64_t width) {
  return sum_of_vectors<Compute<T>>(width, [=](int64_t c, auto lanes) {
    const auto d = lanes.load(dy + c);
    const auto product = d * lanes.load(row + c);
    if (drow) {
      auto value = w * d;
      if (accumulate) value += lanes.load(drow + c);
      lanes.store(drow + c, value);
    }
    return product;
  });
}

template <class T>
void combine_backward_kernel(const CombineBackwardArgs& a) {
  using C = Compute<T>;
  const T* rows = static_cast<const T*>(a.rows);
  const C* weight = static_cast<const C*>(a.weight);
  T* drows = static_cast<T*>(a.drows);
  C* dweight = static_cast<C*>(a.dweight);
#pragma omp parallel for schedule(static) if (a.tokens * a.width > kSerialBytes / 4)
  for (int64_t t = 0; t < a.tokens; ++t) {
    const T* dy = static_cast<const T*>(a.dy) + t * a.width;
    for (int32_t i = a.row_start[t]; i < a.row_start[t + 1]; ++i) {
      int64_t at = a.row[i] * a.width;
      C dot = combine_backward_row<T>(dy, rows + at, weight[i], drows ? drows + at : nullptr,
                                      a.accumulate_drows, a.width);
      if (dweight) dweight[i] = a.accumulate_dweight ? dweight[i] + dot : dot;
    }
  }
}

}  // namespace

void launch(CpuStream&, const SortByExpertArgs& a) {
  // Counting sort: a histogram per block of tokens, then each block places its own assignments.
  int64_t blocks = std::max<int64_t>(1, (a.tokens + kSortBlock - 1) / kSortBlock);
  std::vector<int32_t> next(static_cast<size_t>(blocks * a.experts));
  auto for_block = [&](int64_t b, auto&& visit) {
    for (int64_t t = b * kSortBlock; t < std::min(a.tokens, (b + 1) * kSortBlock); ++t)
      for (int32_t i = a.row_start[t]; i < a.row_start[t + 1]; ++i)
        visit(t, i, next[static_cast<size_t>(b * a.experts + a.expert[i])]);
  };
#pragma omp parallel for schedule(static) if (blocks > 4)
  for (int64_t b = 0; b < blocks; ++b)
    for_block(b, [](int64_t, int32_t, int32_t& count) { ++count; });
  int32_t total = 0;
  for (int64_t e = 0; e < a.experts; ++e) {
    a.offsets[e] = total;
    for (int64_t b = 0; b < blocks; ++b) {
      int32_t& count = next[static_cast<size_t>(b * a.experts + e)];
      total += count;
      count = total - count;
    }
  }
  a.offsets[a.experts] = total;
#pragma omp parallel for schedule(static) if (blocks > 4)
  for (int64_t b = 0; b < blocks; ++b) {
    for_block(b, [&](int64_t t, int32_t i, int32_t& place) {
      a.row[i] = place;
      a.token[place++] = static_cast<int32_t>(t);
    });
  }
}

void launch(CpuStream&, const GatherRowsArgs& a) {
  const char* in = static_cast<const char*>(a.in);
  char* out = static_cast<char*>(a.out);
  const int64_t rows = a.used ? *a.used : a.rows;
#pragma omp parallel for schedule(static) if (rows * a.row_bytes > kSerialBytes)
  for (int64_t i = 0; i < rows; ++i) {
    std::memcpy(out + i * a.row_bytes, in + a.from[i] * a.row_bytes,
                static_cast<size_t>(a.row_bytes));
  }
}

void launch(CpuStream&, const ScatterRowsArgs& a) {
  const char* in = static_cast<const char*>(a.in);
  char* out = static_cast<char*>(a.out);
#pragma omp parallel for schedule(static) if (a.rows * a.row_bytes > kSerialBytes)
  for (int64_t i = 0; i < a.rows; ++i) {
    std::memcpy(out + a.to[i] * a.row_bytes, in + i * a.row_bytes,
                static_cast<size_t>(a.row_bytes));
  }
}

void launch(CpuStream&, const SumRowsArgs& a) {
  visit_floating(a.type, [&](auto type) { sum_kernel<decltype(type)>(a); });
}

void launch(CpuStream&, const CombineBackwardArgs& a) {
  visit_floating(a.type, [&](auto type) { combine_backward_kernel<decltype(type)>(a); });
}

}  // namespace adagate
