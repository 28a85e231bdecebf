// Row movements of MoE layers. Work per thread: whole rows. Bytes: every row is read once and
// written once; the gathers are as fast as memory when a row is a few hundred bytes or more.
#include "core/ops/permute.h"

#include <algorithm>
#include <cstring>

namespace adagate {
namespace {

constexpr int64_t kSortBlock = 1024;       // tokens per histogram
constexpr int64_t kChunk = 256;            // elements of a row summed at a time, kept in L1
constexpr int64_t kSerialBytes = 1 << 16;  // below this one thread is faster

// out (+)= sum_i weight_i rows[row_i], elements [begin, begin + n) of one token.
template <class T>
void sum_chunk(const SumRowsArgs& a, int64_t t, int64_t begin, int64_t n) {
  using C = Compute<T>;
  const T* rows = static_cast<const T*>(a.rows) + begin;
  const C* weight = static_cast<const C*>(a.weight);
  T* out = static_cast<T*>(a.out) + t * a.width + begin;
  C sum[kChunk];
  if (a.accumulate) {
#pragma omp simd
    for (int64_t c = 0; c < n; ++c) sum[c] = static_cast<C>(out[c]);
  } else {
    std::fill_n(sum, n, C(0));
  }
  for (int32_t i = a.row_start[t]; i < a.row_start[t + 1]; ++i) {
    const T* row = rows + a.row[i] * a.width;
    C w = weight ? weight[i] : C(1);
#pragma omp simd
    for (int64_t c = 0; c < n; ++c) sum[c] += w * static_cast<C>(row[c]);
  }
#pragma omp simd
  for (int64_t c = 0; c < n; ++c) out[c] = T(sum[c]);
}

template <class T>
void sum_kernel(const SumRowsArgs& a) {
#pragma omp parallel for schedule(static) if (a.tokens * a.width > kSerialBytes / 4)
  for (int64_t t = 0; t < a.tokens; ++t)
    for (int64_t begin = 0; begin < a.width; begin += kChunk)
      sum_chunk<T>(a, t, begin, std::min(kChunk, a.width - begin));
}

// One assignment's row: drow (+)= w dy, returns <dy, row>.
template <class T>
Compute<T> combine_backward_row(const T* dy, const T* row, Compute<T> w, T* drow, bool accumulate,
                                int64_t width) {
  using C = Compute<T>;
  C dot = 0;
  if (!drow) {
#pragma omp simd reduction(+ : dot)
    for (int64_t c = 0; c < width; ++c) dot += static_cast<C>(dy[c]) * static_cast<C>(row[c]);
  } else if (accumulate) {
#pragma omp simd reduction(+ : dot)
    for (int64_t c = 0; c < width; ++c) {
      dot += static_cast<C>(dy[c]) * static_cast<C>(row[c]);
      drow[c] = T(static_cast<C>(drow[c]) + w * static_cast<C>(dy[c]));
    }
  } else {
#pragma omp simd reduction(+ : dot)
    for (int64_t c = 0; c < width; ++c) {
      dot += static_cast<C>(dy[c]) * static_cast<C>(row[c]);
      drow[c] = T(w * static_cast<C>(dy[c]));
    }
  }
  return dot;
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
#pragma omp parallel for schedule(static) if (a.rows * a.row_bytes > kSerialBytes)
  for (int64_t i = 0; i < a.rows; ++i) {
    std::memcpy(out + i * a.row_bytes, in + a.from[i] * a.row_bytes,
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
