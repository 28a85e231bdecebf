// What tensors themselves need of a device: constants, conversions, and the one sum that the tape
// takes.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/base/dtype.h"
#include "core/device/launch.h"

namespace adagate {

// out[i] = value
struct FillArgs {
  static constexpr std::string_view kKernel = "fill";
  void* out = nullptr;
  int64_t n = 0;
  double value = 0;
  DType type = DType::f32;
};
void launch(CpuStream&, const FillArgs&);
void launch(CudaStream&, const FillArgs&);

// to[i] = from[i]; of one type: a copy.
struct ConvertArgs {
  static constexpr std::string_view kKernel = "convert";
  void* to = nullptr;
  const void* from = nullptr;
  int64_t n = 0;
  DType to_type = DType::f32, from_type = DType::f32;
};
void launch(CpuStream&, const ConvertArgs&);
void launch(CudaStream&, const ConvertArgs&);

// to[i] += from[i], floating types; summed in Compute<to_type>.
struct AccumulateArgs {
  static constexpr std::string_view kKernel = "accumulate";
  void* to = nullptr;
  const void* from = nullptr;
  int64_t n = 0;
  DType to_type = DType::f32, from_type = DType::f32;
};
void launch(CpuStream&, const AccumulateArgs&);
void launch(CudaStream&, const AccumulateArgs&);

}  // namespace adagate
