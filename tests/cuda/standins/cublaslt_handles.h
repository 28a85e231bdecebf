// What the stand-in's handles are: a product, the layouts of its matrices, preferences.
#pragma once

#include <cstdint>
#include <cublasLt.h>

namespace adagate::standins {

struct Layout {
  int32_t type = CUDA_R_32F;
  int32_t order = CUBLASLT_ORDER_COL;
  uint64_t rows = 0, cols = 0;
  int64_t ld = 0;
  int32_t batch_count = 1;
  int64_t batch_stride = 0;
};

struct Description {
  int32_t compute = CUBLAS_COMPUTE_32F;
  int32_t scale_type = CUDA_R_32F;
  int32_t pointer_mode = CUBLASLT_POINTER_MODE_HOST;
  int32_t trans_a = CUBLAS_OP_N, trans_b = CUBLAS_OP_N, trans_c = CUBLAS_OP_N;
  uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
  int64_t bias_batch_stride = 0;
  int32_t bias_type = -1;  // as D
  int32_t sm_count = 0;
};

struct Preference {
  uint64_t max_workspace = 0;
  uint32_t reduction_schemes = CUBLASLT_REDUCTION_SCHEME_MASK;
  uint32_t align_a = 256, align_b = 256, align_c = 256, align_d = 256;
};

// The handles are pointers to what is behind them.
inline Layout& behind(cublasLtMatrixLayout_t layout) {
  return *reinterpret_cast<Layout*>(layout);
}
inline Description& behind(cublasLtMatmulDesc_t product) {
  return *reinterpret_cast<Description*>(product);
}
inline Preference& behind(cublasLtMatmulPreference_t preference) {
  return *reinterpret_cast<Preference*>(preference);
}

}  // namespace adagate::standins
