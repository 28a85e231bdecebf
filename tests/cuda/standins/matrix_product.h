// The arithmetic behind a stand-in's matrix product.
#pragma once

#include <cstddef>
#include <cstdint>

namespace adagate::standins {

// By columns, `ld` elements from one to the next; its transpose enters the product when the flag is
// set. `type` is a cudaDataType.
struct Matrix {
  void* data;
  int32_t type;
  size_t rows, cols, ld;
  bool transposed;
};

// d = alpha a b + beta c + bias; bias null or one element per row of d, of d's type. Sums in f32,
// in f64 for f64. c is not read when beta is 0. d may be c.
struct Product {
  Matrix a, b, c, d;
  const void* bias;
  double alpha, beta;
};
void multiply(const Product& product);

}  // namespace adagate::standins
