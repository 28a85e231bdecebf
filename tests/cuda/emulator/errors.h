// The last error of the calling thread.
#pragma once

#include <cuda_runtime_api.h>

namespace adagate::emulator {

// Remembers the error for cudaGetLastError.
cudaError_t failed(cudaError_t error);

}  // namespace adagate::emulator
