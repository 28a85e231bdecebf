#include "core/ops/cuda/blas.h"

#include <bit>
#include <string>

namespace adagate::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what NVIDIA recommends for Hopper
constexpr size_t kMostPlans = 4096;                   // sizes that vary would pile up without end

std::string shape_text(const MatmulArgs& p) {
  return fmt::format("{}[{}, {}]{} x {}[{}, {}]{} -> {}{}{}", name_of(p.a_type), p.m, p.k,
                     p.trans_a ? "^T" : "", name_of(p.b_type), p.k, p.n, p.trans_b ? "^T" : "",
                     name_of(p.c_type), p.bias ? " with bias" : "",
                     p.accumulate ? ", accumulated" : "");
}

void check_blas(cublasStatus_t status, const char* what) {
  check(status == CUBLAS_STATUS_SUCCESS, "cuBLASLt: {} failed with {}", what,
        cublasLtGetStatusName(status));
}

cudaDataType_t library_type(DType type) {
  return type == DType::f64 ? CUDA_R_64F : type == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

// Whether it is worth asking the library at all.
bool may_take(const MatmulArgs& p) {
  if (p.a_type != p.b_type) return false;
  if (p.a_type != p.c_type && !(p.a_type == DType::bf16 && p.c_type == DType::f32)) return false;
  return !p.bias || (p.bias_type == p.c_type && p.c_type != DType::f64);
}

int alignment_of(const void* p) {
  constexpr uintptr_t kMost = 16;
  const auto address = reinterpret_cast<uintptr_t>(p) | kMost;
  return 1 << std::countr_zero(address);
}

// Up to an eighth more, so that sizes between two powers of 2 are eight different ones.
int64_t rounded_up(int64_t n) {
  const auto bits = std::bit_width(static_cast<uint64_t>(n));
  const int64_t step = int64_t{1} << (bits > 4 ? bits - 4 : 0);
  return (n + step - 1) / step * step;
}

// An object of the library's that is destroyed with its owner.
template <class Handle, cublasStatus_t (*kDestroy)(Handle)>
struct Owned {
  Handle handle = nullptr;
  Owned() = default;
  ~Owned() {
    if (handle) kDestroy(handle);
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
};
using Description = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

template <class T>
void set(const Description& to, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check_blas(cublasLtMatmulDescSetAttribute(to.handle, attribute, &value, sizeof value),
             "setting an attribute of a product");
}
template <class T>
void set(const Preference& to, cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
  check_blas(cublasLtMatmulPreferenceSetAttribute(to.handle, attribute, &value, sizeof value),
             "setting a preference");
}

// A matrix in rows of ours is one in columns of the library's, transposed.
void lay_out(Layout& layout, DType type, int64_t rows, int64_t cols, int64_t ld) {
  check_blas(
      cublasLtMatrixLayoutCreate(&layout.handle, library_type(type), static_cast<uint64_t>(cols),
                                 static_cast<uint64_t>(rows), ld),
      "laying out a matrix");
}

}  // namespace

// How the library is told of a product. It knows matrices by columns, which are ours transposed:
// c^T = op(b)^T op(a)^T, so b goes first and nothing is transposed that ours is not.
struct Blas::Plan {
  Description description;
  Layout a, b, c;
  Algorithm algorithm = {};

  explicit Plan(const Key& key) {
    const bool f64 = key.c_type == DType::f64;
    check_blas(
        cublasLtMatmulDescCreate(&description.handle, f64 ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                                 f64 ? CUDA_R_64F : CUDA_R_32F),
        "describing a product");
    set(description, CUBLASLT_MATMUL_DESC_TRANSA, key.trans_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(description, CUBLASLT_MATMUL_DESC_TRANSB, key.trans_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (key.bias) {
      set(description, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(description, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
          static_cast<int32_t>(library_type(key.c_type)));
      // The heuristic looks at the address's alignment alone.
      set_bias(reinterpret_cast<const void*>(static_cast<uintptr_t>(key.align_bias)));
    }
    lay_out(a, key.a_type, key.trans_a ? key.k : key.m, key.trans_a ? key.m : key.k, key.lda);
    lay_out(b, key.b_type, key.trans_b ? key.n : key.k, key.trans_b ? key.k : key.n, key.ldb);
    lay_out(c, key.c_type, key.m, key.n, key.ldc);
  }
  void set_bias(const void* bias) const {
    set(description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }
};

Blas::Blas(CudaStream& stream) : stream_(stream) {
  check_blas(cublasLtCreate(&handle_), "its start");
  workspace_ = stream_.allocate(kWorkspaceBytes);
}

Blas::Key Blas::key_of(const MatmulArgs& p) {
  return {.m = p.m,
          .n = p.n,
          .k = p.k,
          .lda = p.lda,
          .ldb = p.ldb,
          .ldc = p.ldc,
          .align_a = alignment_of(p.a),
          .align_b = alignment_of(p.b),
          .align_c = alignment_of(p.c),
          .align_bias = alignment_of(p.bias),
          .a_type = p.a_type,
          .b_type = p.b_type,
          .c_type = p.c_type,
          .trans_a = p.trans_a,
          .trans_b = p.trans_b,
          .accumulate = p.accumulate,
          .bias = p.bias != nullptr};
}

const Blas::Algorithm* Blas::algorithm(const Key& key) {
  auto [found, is_new] = algorithms_.try_emplace(key);
  auto& algorithm = found->second;
  if (is_new) {
    const Plan plan(key);
    Preference preference;
    check_blas(cublasLtMatmulPreferenceCreate(&preference.handle), "making preferences");
    set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
    // Not in the output's type, which may be bf16; nor in place, which is in that type, too.
    set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<uint32_t>(key.align_b));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(key.align_a));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(key.align_c));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(key.align_c));
    cublasLtMatmulHeuristicResult_t result = {};
    int results = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle_, plan.description.handle, plan.b.handle, plan.a.handle, plan.c.handle,
        plan.c.handle, preference.handle, 1, &result, &results);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED) check_blas(status, "the choice of an algorithm");
    if (status == CUBLAS_STATUS_SUCCESS && results > 0 && result.state == CUBLAS_STATUS_SUCCESS)
      algorithm = Algorithm{result.algo, result.workspaceSize};
  }
  return algorithm ? &*algorithm : nullptr;
}

Blas::Plan* Blas::plan(const MatmulArgs& p, Varying varying) {
  const Key key = key_of(p);
  auto found = plans_.find(key);
  if (found != plans_.end()) return found->second.get();
  Key wide = key;
  if (varying == Varying::rows) wide.m = rounded_up(key.m);
  if (varying == Varying::depth) wide.k = rounded_up(key.k);
  const Algorithm* chosen = algorithm(wide);
  if (plans_.size() >= kMostPlans) plans_.clear();
  auto& plan = plans_[key];
  if (chosen) {
    plan = std::make_unique<Plan>(key);
    plan->algorithm = *chosen;
  }
  return plan.get();
}

bool Blas::multiply(const MatmulArgs& p, Varying varying) {
  if (!may_take(p)) return false;
  Plan* plan = this->plan(p, varying);
  if (!plan) return false;
  if (p.bias) plan->set_bias(p.bias);
  const float one_f32 = 1, beta_f32 = p.accumulate ? 1 : 0;
  const double one_f64 = 1, beta_f64 = p.accumulate ? 1 : 0;
  const bool f64 = p.c_type == DType::f64;
  const cublasStatus_t status = cublasLtMatmul(
      handle_, plan->description.handle, f64 ? static_cast<const void*>(&one_f64) : &one_f32, p.b,
      plan->b.handle, p.a, plan->a.handle, f64 ? static_cast<const void*>(&beta_f64) : &beta_f32,
      p.c, plan->c.handle, p.c, plan->c.handle, &plan->algorithm.value, workspace_.data,
      plan->algorithm.workspace_bytes, stream_.handle());
  check(status == CUBLAS_STATUS_SUCCESS, "cuBLASLt: the product {} failed with {}", shape_text(p),
        cublasLtGetStatusName(status));
  return true;
}

}  // namespace adagate::cuda

namespace adagate {

cuda::Blas& CudaStream::blas() {
  if (!blas_) blas_ = new cuda::Blas(*this);
  return *blas_;
}

}  // namespace adagate
