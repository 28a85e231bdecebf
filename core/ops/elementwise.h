// Elementwise arithmetic on whole tensors of one shape.
#pragma once

#include "core/device/launch.h"
#include "core/tensor/tensor.h"

namespace adagate {

Tensor add(const Tensor& a, const Tensor& b);  // a + b, same shape and type
Tensor mul(const Tensor& a, const Tensor& b);  // a * b, same shape and type
Tensor scale(const Tensor& x, double factor);  // x * factor

// Sum of all elements -> [1]; accumulated in f64, f64 for an f64 x and f32 otherwise.
Tensor sum(const Tensor& x);

enum class Elementwise : uint8_t { add, mul, scale };

struct ElementwiseArgs {
  static constexpr std::string_view kKernel = "elementwise";
  Elementwise kind;
  const void* a;  // [n]
  const void* b;  // [n], null for scale
  void* y;        // [n]
  bool accumulate;
  double factor;
  int64_t n;
  DType dtype;
};

struct SumArgs {
  static constexpr std::string_view kKernel = "sum";
  const void* x;  // [n]
  void* y;        // [1], f64 or f32
  int64_t n;
  DType dtype;
};

// dx (+)= *dy everywhere.
struct BroadcastArgs {
  static constexpr std::string_view kKernel = "broadcast";
  const void* dy;  // [1], f64 or f32
  void* dx;        // [n]
  bool accumulate;
  int64_t n;
  DType dtype;
};

void launch(CpuStream&, const ElementwiseArgs&);
void launch(CudaStream&, const ElementwiseArgs&);
void launch(CpuStream&, const SumArgs&);
void launch(CudaStream&, const SumArgs&);
void launch(CpuStream&, const BroadcastArgs&);
void launch(CudaStream&, const BroadcastArgs&);

}  // namespace adagate
