// Dropout whose mask is addressed by (site, address, column): recomputed in backward, never stored,
// and the same on any number of ranks and threads.
#pragma once

#include "core/base/rng.h"
#include "core/device/launch.h"
#include "core/tensor/tensor.h"

namespace adagate {

// One place of the model in one step. The probability is that of dropping an element.
struct DropoutSite {
  Rng rng;
  double probability = 0;
  bool active() const { return probability > 0; }
};

// An element is kept when its 32 random bits reach the threshold, and then multiplied by scale.
struct DropoutMask {
  uint32_t threshold = 0;
  float scale = 1;

  DropoutMask() = default;
  explicit DropoutMask(double probability)
      : threshold(static_cast<uint32_t>(probability * 0x1p32)),
        scale(static_cast<float>(1.0 / (1.0 - probability))) {}
  // Column c of the row whose key is `row_key`: its factor, 0 or scale.
  ADAGATE_HD float factor(uint32_t row_key, uint32_t column) const {
    return mix32(row_key + column * Rng::kRowStride) >= threshold ? scale : 0.0f;
  }
};

// Throws Error unless 0 <= p < 1 and, when p > 0, there is one i64 id for each of `rows` rows.
void check_dropout(const char* op, const DropoutSite& site, const Tensor& addresses, int64_t rows);

// y = mask * x / (1 - p); x [rows, D], addresses i64 [rows] (may be empty when p is 0).
Tensor dropout(const Tensor& x, const DropoutSite& site, const Tensor& addresses);

// y = residual + dropout(x + bias); x, residual [rows, D], bias [D] in x's type or empty.
Tensor bias_dropout_add(const Tensor& x, const Tensor& bias, const Tensor& residual,
                        const DropoutSite& site, const Tensor& addresses);

struct DropoutArgs {
  static constexpr std::string_view kKernel = "dropout";
  const void* x;             // [rows, cols]
  const void* bias;          // [cols] or null
  const void* residual;      // [rows, cols] or null
  void* y;                   // [rows, cols]
  const int64_t* addresses;  // [rows], null without dropout
  Rng rng;
  DropoutMask mask;
  int64_t rows, cols;
  DType dtype;
};

struct DropoutBackwardArgs {
  static constexpr std::string_view kKernel = "dropout_backward";
  const void* dy;            // [rows, cols]
  void* dx;                  // [rows, cols] or null
  void* dbias;               // [cols] or null
  const int64_t* addresses;  // [rows], null without dropout
  Rng rng;
  DropoutMask mask;
  bool accumulate_dx, accumulate_dbias;
  DType dbias_dtype;
  int64_t rows, cols;
  DType dtype;
};

void launch(CpuStream&, const DropoutArgs&);
void launch(CudaStream&, const DropoutArgs&);
void launch(CpuStream&, const DropoutBackwardArgs&);
void launch(CudaStream&, const DropoutBackwardArgs&);

}  // namespace adagate
