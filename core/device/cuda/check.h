// Every status of the CUDA runtime is looked at.
#pragma once

#include <cuda_runtime_api.h>

#include "core/base/error.h"

namespace adagate::cuda {

// Throws Error naming what was tried, the place, and CUDA's name and text of the error.
inline void check_status(cudaError_t status, const char* what, const char* file, int line) {
  if (status != cudaSuccess) [[unlikely]]
    fail("CUDA: {} failed with {} ({}) at {}:{}", what, cudaGetErrorName(status),
         cudaGetErrorString(status), file, line);
}

}  // namespace adagate::cuda

#define ADAGATE_CUDA_CHECK(call) ::adagate::cuda::check_status((call), #call, __FILE__, __LINE__)
