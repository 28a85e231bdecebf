// The stand-in of cuBLASLt against sums by hand, and what it refuses.
#include <cublasLt.h>

#include "core/base/bfloat16.h"
#include "tests/cuda/emulator_fixture.h"

namespace adagate::test {
namespace {

struct Case {
  cudaDataType in = CUDA_R_32F, out = CUDA_R_32F;
  uint64_t m = 5, n = 7, k = 130;
  bool trans_a = false, trans_b = false, bias = false;
  float beta = 0;
  int64_t pad = 3;  // elements between columns that are nobody's
};

template <class T>
std::vector<T> matrix_values(size_t n, int seed) {
  std::vector<T> values(n);
  for (size_t i = 0; i < n; ++i)
    values[i] = T(static_cast<float>((static_cast<int>(i) * 29 + seed) % 17 - 8) / 4);
  return values;
}

struct Handles {
  cublasLtHandle_t library = nullptr;
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;

  explicit Handles(const Case& c) {
    const bool f64 = c.out == CUDA_R_64F;
    REQUIRE(cublasLtCreate(&library) == CUBLAS_STATUS_SUCCESS);
    cublasLtMatmulDescCreate(&product, f64 ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                             f64 ? CUDA_R_64F : CUDA_R_32F);
    const int32_t ta = c.trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const int32_t tb = c.trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta);
    cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb);
    auto layout = [&](cublasLtMatrixLayout_t& handle, cudaDataType type, uint64_t rows,
                      uint64_t cols) {
      cublasLtMatrixLayoutCreate(&handle, type, rows, cols, static_cast<int64_t>(rows) + c.pad);
    };
    layout(a, c.in, c.trans_a ? c.k : c.m, c.trans_a ? c.m : c.k);
    layout(b, c.in, c.trans_b ? c.n : c.k, c.trans_b ? c.k : c.n);
    layout(d, c.out, c.m, c.n);
    cublasLtMatmulPreferenceCreate(&preference);
    const uint32_t element = c.in == CUDA_R_64F ? 8 : c.in == CUDA_R_32F ? 4 : 2;
    for (auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      cublasLtMatmulPreferenceSetAttribute(preference, attribute, &element, sizeof element);
  }
  ~Handles() {
    cublasLtMatmulPreferenceDestroy(preference);
    for (cublasLtMatrixLayout_t layout : {a, b, d}) cublasLtMatrixLayoutDestroy(layout);
    cublasLtMatmulDescDestroy(product);
    cublasLtDestroy(library);
  }
  Handles(const Handles&) = delete;
  Handles& operator=(const Handles&) = delete;

  void set_bias(const void* bias) {
    const uint32_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                   sizeof epilogue);
    cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
  }
  std::pair<cublasStatus_t, cublasLtMatmulHeuristicResult_t> algorithm() {
    cublasLtMatmulHeuristicResult_t result{};
    int results = 0;
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(library, product, a, b, d, d, preference,
                                                           1, &result, &results);
    CHECK(results == (status == CUBLAS_STATUS_SUCCESS ? 1 : 0));
    return {status, result};
  }
};

template <class In, class Out>
void check_product(const Case& c) {
  Handles handles(c);
  EmulatedStream stream;
  const size_t lda = (c.trans_a ? c.k : c.m) + static_cast<size_t>(c.pad);
  const size_t ldb = (c.trans_b ? c.n : c.k) + static_cast<size_t>(c.pad);
  const size_t ldd = c.m + static_cast<size_t>(c.pad);
  const auto a = matrix_values<In>(lda * (c.trans_a ? c.m : c.k), 1);
  const auto b = matrix_values<In>(ldb * (c.trans_b ? c.k : c.n), 2);
  const auto before = matrix_values<Out>(ldd * c.n, 3);
  const auto bias = matrix_values<Out>(c.m, 4);
  EmulatedArray<In> on_a(a), on_b(b);
  EmulatedArray<Out> on_d(before), on_bias(bias);
  if (c.bias) handles.set_bias(on_bias.data());
  auto [status, chosen] = handles.algorithm();
  REQUIRE(status == CUBLAS_STATUS_SUCCESS);
  const float one = 1, beta = c.beta;
  const double one_f64 = 1, beta_f64 = c.beta;
  const bool f64 = c.out == CUDA_R_64F;
  REQUIRE(cublasLtMatmul(handles.library, handles.product,
                         f64 ? static_cast<const void*>(&one_f64) : &one, on_a.data(), handles.a,
                         on_b.data(), handles.b, f64 ? static_cast<const void*>(&beta_f64) : &beta,
                         on_d.data(), handles.d, on_d.data(), handles.d, &chosen.algo, nullptr, 0,
                         stream.handle()) == CUBLAS_STATUS_SUCCESS);
  stream.wait();
  const auto result = on_d.values();
  for (size_t column = 0; column < c.n; ++column)
    for (size_t row = 0; row < ldd; ++row) {
      const size_t at = row + column * ldd;
      if (row >= c.m) {
        CHECK(double(result[at]) == double(before[at]));
        continue;
      }
      double sum = c.beta * double(before[at]) + (c.bias ? double(bias[row]) : 0.0);
      for (size_t i = 0; i < c.k; ++i)
        sum += double(a[c.trans_a ? i + row * lda : row + i * lda]) *
               double(b[c.trans_b ? column + i * ldb : i + column * ldb]);
      CHECK(double(result[at]) == Approx(sum).epsilon(sizeof(Out) == 2 ? 4e-3 : 1e-6));
    }
}

}  // namespace

TEST_CASE("The stand-in of cuBLASLt multiplies") {
  for (bool trans_a : {false, true})
    for (bool trans_b : {false, true})
      for (bool more : {false, true}) {
        Case c{.trans_a = trans_a, .trans_b = trans_b, .bias = more, .beta = more ? 1.0f : 0.0f};
        check_product<float, float>(c);
        c.in = CUDA_R_16BF;
        check_product<bfloat16, float>(c);
        c.out = CUDA_R_16BF;
        check_product<bfloat16, bfloat16>(c);
        c.in = c.out = CUDA_R_64F;
        c.bias = false;
        check_product<double, double>(c);
      }
}

TEST_CASE("The stand-in of cuBLASLt refuses what the library would") {
  const Case mixed{.in = CUDA_R_32F, .out = CUDA_R_16BF};
  CHECK(Handles(mixed).algorithm().first == CUBLAS_STATUS_NOT_SUPPORTED);
  Handles f64(Case{.in = CUDA_R_64F, .out = CUDA_R_64F});
  f64.set_bias(nullptr);
  CHECK(f64.algorithm().first == CUBLAS_STATUS_NOT_SUPPORTED);
  Handles wrong(Case{});
  const uint64_t rows = 6;
  cublasLtMatrixLayoutSetAttribute(wrong.d, CUBLASLT_MATRIX_LAYOUT_ROWS, &rows, sizeof rows);
  CHECK(wrong.algorithm().first == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(cublasLtMatrixLayoutSetAttribute(wrong.d, CUBLASLT_MATRIX_LAYOUT_ROWS, &rows, 4) ==
        CUBLAS_STATUS_INVALID_VALUE);
}

TEST_CASE("An algorithm of cuBLASLt runs for what its heuristic was told") {
  const Case c{.in = CUDA_R_16BF, .out = CUDA_R_32F, .m = 16, .n = 16, .k = 16, .pad = 0};
  Handles handles(c);
  const uint32_t sixteen = 16;
  cublasLtMatmulPreferenceSetAttribute(
      handles.preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &sixteen, sizeof sixteen);
  const uint64_t workspace_bytes = 1 << 20;
  cublasLtMatmulPreferenceSetAttribute(handles.preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                       &workspace_bytes, sizeof workspace_bytes);
  auto [status, chosen] = handles.algorithm();
  REQUIRE(status == CUBLAS_STATUS_SUCCESS);
  REQUIRE(chosen.workspaceSize > 0);
  EmulatedArray<bfloat16> a(matrix_values<bfloat16>(264, 1)), b(matrix_values<bfloat16>(256, 2));
  EmulatedArray<float> d(256), workspace(workspace_bytes / 4);
  EmulatedStream stream;
  const float one = 1, zero = 0;
  auto multiply = [&](int from, size_t bytes) {
    return cublasLtMatmul(handles.library, handles.product, &one, a.data() + from, handles.a,
                          b.data(), handles.b, &zero, d.data(), handles.d, d.data(), handles.d,
                          &chosen.algo, workspace.data(), bytes, stream.handle());
  };
  CHECK(multiply(1, workspace_bytes) == CUBLAS_STATUS_NOT_SUPPORTED);
  CHECK(multiply(0, chosen.workspaceSize - 1) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(multiply(8, chosen.workspaceSize) == CUBLAS_STATUS_SUCCESS);
}

}  // namespace adagate::test
