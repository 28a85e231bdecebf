// cuBLASLt on emulated streams and memory, as much of it as adagate's products ask for: products of
// bf16, f32 and f64 matrices by columns, sums in f32 or f64, a bias as epilogue. As strict as the
// library: an algorithm runs for what its heuristic was told (types, transpositions, alignments),
// in a workspace, which it scribbles over. What the library would refuse gets its status.
#include <algorithm>
#include <bit>
#include <cstring>
#include <cublasLt.h>
#include <vector>

#include "core/base/error.h"
#include "tests/cuda/emulator/faults.h"
#include "tests/cuda/emulator/runtime.h"
#include "tests/cuda/standins/cublaslt_handles.h"
#include "tests/cuda/standins/matrix_product.h"

namespace adagate::standins {
namespace {

constexpr size_t kVersion = 130100;
constexpr size_t kWorkspaceBytes = size_t{64} << 10;  // that algorithms take where they may
constexpr size_t kWorkspaceAlign = 16;
constexpr uint32_t kMostAlignment = 16;  // bytes of the widest loads

// What an algorithm was made for.
struct Algorithm {
  int32_t types[4];
  int32_t compute, trans_a, trans_b;
  uint32_t epilogue;
  uint32_t align_a, align_b, align_c, align_d;  // of addresses and of leading dimensions
  uint32_t workspace_bytes;
  uint32_t number;  // the first of a heuristic's is 1
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

size_t bytes_of(int32_t type) {
  return type == CUDA_R_64F ? 8 : type == CUDA_R_16BF ? 2 : 4;
}
bool has_bias(const Description& product) {
  return product.epilogue == CUBLASLT_EPILOGUE_BIAS;
}
size_t span_bytes(const Layout& layout) {
  const auto ld = static_cast<size_t>(layout.ld);
  const size_t batches = static_cast<size_t>(layout.batch_count - 1) *
                         static_cast<size_t>(std::max<int64_t>(layout.batch_stride, 0));
  return (batches + (layout.cols - 1) * ld + layout.rows) * bytes_of(layout.type);
}

// The layouts of a product, in the library's order.
struct Operands {
  const Layout &a, &b, &c, &d;
};

// Whether the sizes are those of a product.
bool match(const Description& product, const Operands& of) {
  for (const Layout* layout : {&of.a, &of.b, &of.c, &of.d})
    if (layout->rows == 0 || layout->cols == 0 || layout->batch_count < 1 ||
        layout->ld < static_cast<int64_t>(layout->rows) || layout->batch_count != of.d.batch_count)
      return false;
  const bool ta = product.trans_a != CUBLAS_OP_N, tb = product.trans_b != CUBLAS_OP_N;
  const uint64_t m = ta ? of.a.cols : of.a.rows, k = ta ? of.a.rows : of.a.cols;
  const uint64_t n = tb ? of.b.rows : of.b.cols;
  return (tb ? of.b.cols : of.b.rows) == k && of.d.rows == m && of.d.cols == n && of.c.rows == m &&
         of.c.cols == n;
}

// Whether the library has such a product. Types as in its table: bf16 to bf16 or f32, f32, f64; a
// bias of D's type, and none for f64.
bool supported(const Description& product, const Operands& of) {
  const bool f64 = product.compute == CUBLAS_COMPUTE_64F;
  if (!f64 && product.compute != CUBLAS_COMPUTE_32F) return false;
  if (product.scale_type != (f64 ? CUDA_R_64F : CUDA_R_32F)) return false;
  if (product.pointer_mode != CUBLASLT_POINTER_MODE_HOST || product.trans_c != CUBLAS_OP_N)
    return false;
  for (const Layout* layout : {&of.a, &of.b, &of.c, &of.d})
    if (layout->order != CUBLASLT_ORDER_COL) return false;
  const int32_t in = of.a.type, out = of.d.type;
  if (of.b.type != in || of.c.type != out) return false;
  const bool types = f64 ? in == CUDA_R_64F && out == CUDA_R_64F
                         : (in == CUDA_R_32F && out == CUDA_R_32F) ||
                               (in == CUDA_R_16BF && (out == CUDA_R_16BF || out == CUDA_R_32F));
  if (!types) return false;
  if (product.epilogue == CUBLASLT_EPILOGUE_DEFAULT) return true;
  return has_bias(product) && !f64 && (product.bias_type == -1 || product.bias_type == out);
}

// Bytes that addresses and the starts of columns are a multiple of, by what was promised.
uint32_t alignment(uint32_t promised, const Layout& layout) {
  uint64_t steps =
      promised | static_cast<uint64_t>(layout.ld) * bytes_of(layout.type) | kMostAlignment;
  if (layout.batch_count > 1)
    steps |= static_cast<uint64_t>(layout.batch_stride) * bytes_of(layout.type);
  return 1u << std::countr_zero(steps);
}

Algorithm algorithm_for(const Description& product, const Operands& of,
                        const Preference& preference, int number) {
  return {{of.a.type, of.b.type, of.c.type, of.d.type},
          product.compute,
          product.trans_a,
          product.trans_b,
          product.epilogue,
          alignment(preference.align_a, of.a),
          alignment(preference.align_b, of.b),
          alignment(preference.align_c, of.c),
          alignment(preference.align_d, of.d),
          static_cast<uint32_t>(std::min<uint64_t>(preference.max_workspace, kWorkspaceBytes)),
          static_cast<uint32_t>(number)};
}

bool made_for(const Algorithm& algorithm, const Description& product, const Operands& of) {
  return algorithm.number > 0 && algorithm.types[0] == of.a.type &&
         algorithm.types[1] == of.b.type && algorithm.types[2] == of.c.type &&
         algorithm.types[3] == of.d.type && algorithm.compute == product.compute &&
         algorithm.trans_a == product.trans_a && algorithm.trans_b == product.trans_b &&
         algorithm.epilogue == product.epilogue;
}

bool aligned(uint32_t needed, const void* data, const Layout& layout) {
  return reinterpret_cast<uintptr_t>(data) % needed == 0 && alignment(needed, layout) == needed;
}

// The library would read or write wherever the pointer goes.
void check_memory(const char* name, const void* data, size_t bytes) {
  if (!emulator::is_device_memory(data, bytes))
    emulator::stop(
        fmt::format("cublasLtMatmul: {} bytes of {} at {} are not in one allocation of "
                    "a device",
                    bytes, name, data));
}

// alpha or beta.
double scalar(const void* value, int32_t type) {
  return type == CUDA_R_64F ? *static_cast<const double*>(value)
                            : static_cast<double>(*static_cast<const float*>(value));
}

struct Pointers {
  const void *a, *b, *c, *d, *workspace;
};

void check_all_memory(const Description& product, const Operands& of, const Pointers& at,
                      size_t workspace_bytes) {
  check_memory("A", at.a, span_bytes(of.a));
  check_memory("B", at.b, span_bytes(of.b));
  check_memory("C", at.c, span_bytes(of.c));
  check_memory("D", at.d, span_bytes(of.d));
  if (has_bias(product)) check_memory("the bias", product.bias, of.d.rows * bytes_of(of.d.type));
  if (workspace_bytes > 0) check_memory("the workspace", at.workspace, workspace_bytes);
}

Product one_of_batch(const Description& product, const Operands& of, const Pointers& at,
                     double alpha, double beta, int64_t index) {
  auto part = [&](const void* data, int64_t stride, int32_t type) -> const void* {
    if (!data) return nullptr;
    return static_cast<const std::byte*>(data) +
           index * stride * static_cast<int64_t>(bytes_of(type));
  };
  auto matrix = [&](const void* data, const Layout& layout, int32_t operation) {
    return Matrix{const_cast<void*>(part(data, layout.batch_stride, layout.type)),
                  layout.type,
                  layout.rows,
                  layout.cols,
                  static_cast<size_t>(layout.ld),
                  operation != CUBLAS_OP_N};
  };
  return {matrix(at.a, of.a, product.trans_a),
          matrix(at.b, of.b, product.trans_b),
          matrix(at.c, of.c, CUBLAS_OP_N),
          matrix(at.d, of.d, CUBLAS_OP_N),
          part(has_bias(product) ? product.bias : nullptr, product.bias_batch_stride, of.d.type),
          alpha,
          beta};
}

}  // namespace
}  // namespace adagate::standins

using namespace adagate::standins;

extern "C" {

size_t cublasLtGetVersion() {
  return kVersion;
}
size_t cublasLtGetCudartVersion() {
  return 13000;
}
const char* cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
      return "another CUBLAS_STATUS";
  }
}
const char* cublasLtGetStatusString(cublasStatus_t status) {
  return cublasLtGetStatusName(status);
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
  *handle = reinterpret_cast<cublasLtHandle_t>(new char);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete reinterpret_cast<char*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t product,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t* results,
                                              int* returned) {
  const Operands operands{behind(a), behind(b), behind(c), behind(d)};
  if (requested <= 0 || !results || !returned) return CUBLAS_STATUS_INVALID_VALUE;
  *returned = 0;
  if (!match(behind(product), operands)) return CUBLAS_STATUS_INVALID_VALUE;
  if (!supported(behind(product), operands)) return CUBLAS_STATUS_NOT_SUPPORTED;
  constexpr int kAlgorithms = 3;
  for (int i = 0; i < std::min(requested, kAlgorithms); ++i) {
    const Algorithm algorithm = algorithm_for(behind(product), operands, behind(preference), i + 1);
    results[i] = {};
    std::memcpy(&results[i].algo, &algorithm, sizeof algorithm);
    results[i].workspaceSize = algorithm.workspace_bytes;
    results[i].state = CUBLAS_STATUS_SUCCESS;
    results[i].wavesCount = 1;
    *returned = i + 1;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t product_handle,
                              const void* alpha, const void* a, cublasLtMatrixLayout_t a_layout,
                              const void* b, cublasLtMatrixLayout_t b_layout, const void* beta,
                              const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo,
                              void* workspace, size_t workspace_bytes, cudaStream_t stream) {
  const Description product = behind(product_handle);
  const Operands of{behind(a_layout), behind(b_layout), behind(c_layout), behind(d_layout)};
  if (!match(product, of)) return CUBLAS_STATUS_INVALID_VALUE;
  if (!supported(product, of)) return CUBLAS_STATUS_NOT_SUPPORTED;
  Algorithm algorithm = algorithm_for(product, of, {}, 1);
  if (algo) std::memcpy(&algorithm, algo, sizeof algorithm);
  if (!made_for(algorithm, product, of) || workspace_bytes < algorithm.workspace_bytes)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (!aligned(algorithm.align_a, a, of.a) || !aligned(algorithm.align_b, b, of.b) ||
      !aligned(algorithm.align_c, c, of.c) || !aligned(algorithm.align_d, d, of.d) ||
      reinterpret_cast<uintptr_t>(workspace) % kWorkspaceAlign != 0)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  const Pointers at{a, b, c, d, workspace};
  check_all_memory(product, of, at, algorithm.workspace_bytes);
  std::vector<Product> batch;
  for (int32_t i = 0; i < of.d.batch_count; ++i)
    batch.push_back(one_of_batch(product, of, at, scalar(alpha, product.scale_type),
                                 scalar(beta, product.scale_type), i));
  const size_t scribbled = algorithm.workspace_bytes;
  adagate::emulator::enqueue(stream, "cublasLtMatmul", [=] {
    if (scribbled > 0) std::memset(workspace, 0xFF, scribbled);
    for (const Product& one : batch) multiply(one);
    return true;
  });
  return CUBLAS_STATUS_SUCCESS;
}
}
