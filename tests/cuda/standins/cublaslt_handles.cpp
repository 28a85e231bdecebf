// The handles of cuBLASLt's stand-in: made, destroyed, their attributes set and read.
#include "tests/cuda/standins/cublaslt_handles.h"

#include <cstring>

namespace adagate::standins {
namespace {

struct Field {
  void* data;
  size_t bytes;
};
template <class T>
Field field(T& value) {
  return {&value, sizeof value};
}

Field field_of(Layout& layout, cublasLtMatrixLayoutAttribute_t attribute) {
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE:
      return field(layout.type);
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
      return field(layout.order);
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
      return field(layout.rows);
    case CUBLASLT_MATRIX_LAYOUT_COLS:
      return field(layout.cols);
    case CUBLASLT_MATRIX_LAYOUT_LD:
      return field(layout.ld);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
      return field(layout.batch_count);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      return field(layout.batch_stride);
    default:
      return {nullptr, 0};
  }
}
Field field_of(Description& product, cublasLtMatmulDescAttributes_t attribute) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE:
      return field(product.compute);
    case CUBLASLT_MATMUL_DESC_SCALE_TYPE:
      return field(product.scale_type);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
      return field(product.pointer_mode);
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return field(product.trans_a);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return field(product.trans_b);
    case CUBLASLT_MATMUL_DESC_TRANSC:
      return field(product.trans_c);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return field(product.epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return field(product.bias);
    case CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE:
      return field(product.bias_batch_stride);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return field(product.bias_type);
    case CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET:
      return field(product.sm_count);
    default:
      return {nullptr, 0};
  }
}
Field field_of(Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute) {
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return field(preference.max_workspace);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return field(preference.reduction_schemes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return field(preference.align_a);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return field(preference.align_b);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return field(preference.align_c);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return field(preference.align_d);
    default:
      return {nullptr, 0};
  }
}

cublasStatus_t set(Field to, const void* value, size_t bytes) {
  if (!to.data || !value || bytes != to.bytes) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(to.data, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t get(Field from, void* value, size_t bytes, size_t* written) {
  if (!from.data || (bytes != 0 && bytes != from.bytes)) return CUBLAS_STATUS_INVALID_VALUE;
  if (bytes > 0) std::memcpy(value, from.data, bytes);
  if (written) *written = from.bytes;
  return CUBLAS_STATUS_SUCCESS;
}

template <class Opaque, class T>
cublasStatus_t give(Opaque** handle, T value) {
  if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
  *handle = reinterpret_cast<Opaque*>(new T(value));
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace
}  // namespace adagate::standins

using namespace adagate::standins;

extern "C" {

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld) {
  return give(layout, Layout{.type = type, .rows = rows, .cols = cols, .ld = ld});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete &behind(layout);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void* value, size_t bytes) {
  return set(field_of(behind(layout), attribute), value, bytes);
}
cublasStatus_t cublasLtMatrixLayoutGetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                void* value, size_t bytes, size_t* written) {
  return get(field_of(behind(layout), attribute), value, bytes, written);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* product, cublasComputeType_t compute,
                                        cudaDataType_t scale_type) {
  return give(product, Description{.compute = compute, .scale_type = scale_type});
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product) {
  delete &behind(product);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  return set(field_of(behind(product), attribute), value, bytes);
}
cublasStatus_t cublasLtMatmulDescGetAttribute(cublasLtMatmulDesc_t product,
                                              cublasLtMatmulDescAttributes_t attribute, void* value,
                                              size_t bytes, size_t* written) {
  return get(field_of(behind(product), attribute), value, bytes, written);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  return give(preference, Preference{});
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete &behind(preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t bytes) {
  return set(field_of(behind(preference), attribute), value, bytes);
}
cublasStatus_t cublasLtMatmulPreferenceGetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    void* value, size_t bytes, size_t* written) {
  return get(field_of(behind(preference), attribute), value, bytes, written);
}
}
