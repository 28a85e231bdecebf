// The CUDA kernels by name.
#pragma once

#include "core/device/backend.h"

namespace adagate::cuda {

// Null: there is none with this name and arguments of this size.
KernelFn kernel_named(std::string_view name, size_t args_bytes);

}  // namespace adagate::cuda
