// Matrix products by cuBLASLt.
#pragma once

#include <compare>
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <map>
#include <memory>
#include <optional>

#include "core/device/cuda/stream.h"
#include "core/ops/matmul.h"

namespace adagate::cuda {

// Which size of a product is another one in every step (the rows of an expert, say): algorithms are
// asked for sizes of about as many. None of the strides depends on it.
enum class Varying : uint8_t { none, rows, depth };

// The library with what one stream needs of it. Sums are in f32 (f64 for f64), also where a product
// is cut along its depth; no TF32. The same product gets the same algorithm every time, hence, with
// a workspace of the stream's own, the same bits. Not for several threads at once. Lives as long as
// its stream: for the rest of the process.
class Blas {
 public:
  explicit Blas(CudaStream& stream);
  ~Blas() = delete;
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;

  // Queues the product; strides of 0 have been filled in, no size is 0. False: the library has no
  // algorithm for these types, strides or addresses, and nothing was queued.
  bool multiply(const MatmulArgs& product, Varying varying = Varying::none);

 private:
  // What the choice of an algorithm depends on.
  struct Key {
    int64_t m, n, k, lda, ldb, ldc;
    int align_a, align_b, align_c, align_bias;  // bytes, up to 16
    DType a_type, b_type, c_type;
    bool trans_a, trans_b, accumulate, bias;
    auto operator<=>(const Key&) const = default;
  };
  static Key key_of(const MatmulArgs& product);

  struct Algorithm {
    cublasLtMatmulAlgo_t value;
    size_t workspace_bytes;
  };
  struct Plan;

  // The heuristic's first choice, which is asked for once; null: it knows none.
  const Algorithm* algorithm(const Key& key);
  // Null: the library takes no such product.
  Plan* plan(const MatmulArgs& product, Varying varying);

  CudaStream& stream_;
  cublasLtHandle_t handle_ = nullptr;
  MemoryBlock workspace_;
  std::map<Key, std::optional<Algorithm>> algorithms_;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace adagate::cuda
