#include "tests/cuda/standins/matrix_product.h"

#include <algorithm>
#include <library_types.h>
#include <vector>

#include "core/base/bfloat16.h"

namespace adagate::standins {
namespace {

// The matrix, transposed if it is to be, as `outer` rows of `inner` elements: of a the elements of
// one column, of b those of one row, so that both are walked along m or n.
template <class Sum, class T>
std::vector<Sum> packed_as(const Matrix& x, bool by_columns) {
  const auto* data = static_cast<const T*>(x.data);
  const size_t rows = x.transposed ? x.cols : x.rows, cols = x.transposed ? x.rows : x.cols;
  std::vector<Sum> packed(rows * cols);
  for (size_t column = 0; column < cols; ++column)
    for (size_t row = 0; row < rows; ++row) {
      const size_t from = x.transposed ? column + row * x.ld : row + column * x.ld;
      packed[by_columns ? column * rows + row : row * cols + column] = static_cast<Sum>(data[from]);
    }
  return packed;
}

template <class Sum>
std::vector<Sum> packed(const Matrix& x, bool by_columns) {
  if (x.type == CUDA_R_64F) return packed_as<Sum, double>(x, by_columns);
  if (x.type == CUDA_R_16BF) return packed_as<Sum, bfloat16>(x, by_columns);
  return packed_as<Sum, float>(x, by_columns);
}

// One column of a b: `a` by columns of m, `b` by rows of n. Added up in blocks of k, as a GPU's
// tiles do.
template <class Sum>
void column_of_product(const std::vector<Sum>& a, const std::vector<Sum>& b, size_t column,
                       size_t m, size_t n, size_t k, std::vector<Sum>& sums) {
  constexpr size_t kBlock = 64;
  std::vector<Sum> part(m);
  std::fill(sums.begin(), sums.end(), Sum(0));
  for (size_t start = 0; start < k; start += kBlock) {
    std::fill(part.begin(), part.end(), Sum(0));
    for (size_t i = start; i < std::min(k, start + kBlock); ++i) {
      const Sum factor = b[i * n + column];
      const Sum* from = a.data() + i * m;
      for (size_t row = 0; row < m; ++row) part[row] += from[row] * factor;
    }
    for (size_t row = 0; row < m; ++row) sums[row] += part[row];
  }
}

template <class Sum, class Out>
void multiply_as(const Product& p) {
  const std::vector<Sum> a = packed<Sum>(p.a, true), b = packed<Sum>(p.b, false);
  const size_t m = p.d.rows, n = p.d.cols, k = a.size() / m;
  const auto* bias = static_cast<const Out*>(p.bias);
  std::vector<Sum> sums(m);
  for (size_t column = 0; column < n; ++column) {
    column_of_product(a, b, column, m, n, k, sums);
    const Out* c = static_cast<const Out*>(p.c.data) + column * p.c.ld;
    Out* d = static_cast<Out*>(p.d.data) + column * p.d.ld;
    for (size_t row = 0; row < m; ++row) {
      Sum value = static_cast<Sum>(p.alpha) * sums[row];
      if (p.beta != 0) value += static_cast<Sum>(p.beta) * static_cast<Sum>(c[row]);
      if (bias) value += static_cast<Sum>(bias[row]);
      d[row] = Out(value);
    }
  }
}

}  // namespace

void multiply(const Product& product) {
  if (product.d.type == CUDA_R_64F)
    multiply_as<double, double>(product);
  else if (product.d.type == CUDA_R_16BF)
    multiply_as<float, bfloat16>(product);
  else
    multiply_as<float, float>(product);
}

}  // namespace adagate::standins
