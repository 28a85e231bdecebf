// Embedding on the CPU. Forward: each thread copies whole rows, 2-3 sizes per element. Backward:
// each thread owns fixed blocks of columns and walks all tokens in order, so a table row is summed
// in token order whatever the number of threads, with neither sorting nor atomics; bytes per
// element: dy once, the gradient row read and written.
#include "core/ops/embedding.h"

#include <algorithm>
#include <cstring>

#include "core/base/threads.h"

namespace adagate {
namespace {

void check_ids(const char* what, const int32_t* ids, int64_t n, int64_t rows) {
  for (int64_t i = 0; i < n; ++i) {
    check(ids[i] >= 0 && ids[i] < rows,
          "embedding: {} id {} at place {} is outside the table of {}", what, ids[i], i, rows);
  }
}

template <class T>
void forward(const EmbeddingArgs& a) {
  using C = Compute<T>;
  const int64_t cols = a.cols;
  const T* table = static_cast<const T*>(a.table);
  const T* position_table = static_cast<const T*>(a.position_table);
#pragma omp parallel for schedule(static) num_threads(threads_for(a.n* cols))
  for (int64_t i = 0; i < a.n; ++i) {
    const T* row = table + a.tokens[i] * cols;
    T* y = static_cast<T*>(a.y) + i * cols;
    if (!a.positions) {
      std::memcpy(static_cast<void*>(y), row, static_cast<size_t>(cols) * sizeof(T));
      continue;
    }
    const T* position = position_table + a.positions[i] * cols;
#pragma omp simd
    for (int64_t c = 0; c < cols; ++c)
      y[c] = T(static_cast<C>(row[c]) + static_cast<C>(position[c]));
  }
}

template <class T, class G>
void backward(const EmbeddingBackwardArgs& a) {
  constexpr int64_t kColumns = 64;  // 256 bytes of f32: whole cache lines per thread
  using C = Compute<G>;
  G* dtable = static_cast<G*>(a.dtable);
  if (!a.accumulate) {
#pragma omp parallel for schedule(static) num_threads(threads_for(a.table_rows* a.cols))
    for (int64_t row = 0; row < a.table_rows; ++row)
      std::memset(static_cast<void*>(dtable + row * a.cols), 0,
                  static_cast<size_t>(a.cols) * sizeof(G));
  }
#pragma omp parallel for schedule(static) num_threads(threads_for(a.n* a.cols))
  for (int64_t begin = 0; begin < a.cols; begin += kColumns) {
    const int64_t count = std::min(kColumns, a.cols - begin);
    for (int64_t i = 0; i < a.n; ++i) {
      const T* dy = static_cast<const T*>(a.dy) + i * a.cols + begin;
      G* to = dtable + a.ids[i] * a.cols + begin;
#pragma omp simd
      for (int64_t c = 0; c < count; ++c) to[c] = G(static_cast<C>(to[c]) + static_cast<C>(dy[c]));
    }
  }
}

}  // namespace

void launch(CpuStream&, const EmbeddingArgs& a) {
  check_ids("token", a.tokens, a.n, a.vocabulary);
  if (a.positions) check_ids("position", a.positions, a.n, a.context);
  visit_floating(a.dtype, [&](auto type) { forward<decltype(type)>(a); });
}

void launch(CpuStream&, const EmbeddingBackwardArgs& a) {
  visit_floating(a.dtype, [&](auto type) {
    visit_floating(a.dtable_dtype, [&](auto grad) { backward<decltype(type), decltype(grad)>(a); });
  });
}

}  // namespace adagate
