// Weight gradient, dW [m, n] (+)= X^T dY: the depth is the rows, in pairs of neighbours. Packing X
// by pairs of rows and turning the pairs gives left operands by row, packing dY alike gives right
// ones. Per kDepth rows X is packed once and stays in the second-level cache; each panel of 32
// columns of dY is packed once and multiplied with all of X from the first level. Bytes: each
// operand is read once, dW read and written once per kDepth rows.
//
// Input gradient of few rows, dX [m, n] (+)= dY W^T: turned round, dX^T = W dY^T. W stands in
// memory as left operands do, so the weights, which are most of the bytes, are read once and never
// packed; only the few rows of dY are.
#include "core/ops/cpu/tile_products.h"

#include <cstring>

#include "core/device/cpu_buffer.h"
#include "core/ops/cpu/matrix_tiles.h"

namespace adagate::cpu {

#if ADAGATE_BF16_PRODUCTS
namespace {

constexpr int64_t kDepth = 512;  // rows of X and dY at a time
constexpr int64_t kPairs = kDepth / 2;
constexpr int64_t kMostRows = 128;  // of an input gradient: more repay packed weights
constexpr int64_t kBlock = 32;      // rows and columns of dW at a time: 2 x 2 tiles

// Pairs of neighbouring rows of 32 columns: to [pairs, 32]. Rows and columns past the end are zero.
void pack_pairs(const bfloat16* from, int64_t stride, int64_t rows, int64_t cols, int64_t pairs,
                uint32_t* to) {
  alignas(kVectorBytes) static constexpr bfloat16 kZeros[kBlock] = {};
  alignas(kVectorBytes) bfloat16 edge[2][kBlock] = {};
  for (int64_t p = 0; p < pairs; ++p, to += kBlock) {
    const bfloat16* row[2];
    for (int64_t i = 0; i < 2; ++i) {
      const int64_t r = 2 * p + i;
      row[i] = r < rows ? from + r * stride : kZeros;
      if (r >= rows || cols >= kBlock) continue;
      std::copy_n(row[i], cols, edge[i]);
      row[i] = edge[i];
    }
    Bf16Operands::along_column(row[0], row[1], to);
  }
}

template <class Unit>
class WeightGradient {
 public:
  explicit WeightGradient(const MatmulArgs& p)
      : p_(p),
        rows_(round_up(p.m, kBlock)),
        left_(static_cast<size_t>(rows_ * kPairs) * sizeof(uint32_t)) {}

  void run() {
    [[maybe_unused]] const typename Unit::Session session;
    for (int64_t first = 0; first < p_.k; first += kDepth) {
      const int64_t count = std::min(kDepth, p_.k - first);
      const int64_t pairs = round_up((count + 1) / 2, kTileRows);
      pack_left(first, count, pairs);
      if (first == 0 && !p_.accumulate) {
        columns<Write::overwrite>(first, count, pairs);
      } else {
        columns<Write::accumulate>(first, count, pairs);
      }
    }
  }

 private:
  // left_ [rows_, kPairs] = X's columns as rows.
  void pack_left(int64_t first, int64_t count, int64_t pairs) {
    const auto* x = static_cast<const bfloat16*>(p_.a) + first * p_.lda;
    for (int64_t i = 0; i < p_.m; i += kBlock) {
      pack_pairs(x + i, p_.lda, count, std::min(kBlock, p_.m - i), pairs, panel_);
      transpose(pairs, kBlock, panel_, kBlock, left_.as<uint32_t>() + i * kPairs, kPairs);
    }
  }

  template <Write kWrite>
  void columns(int64_t first, int64_t count, int64_t pairs) {
    const auto* dy = static_cast<const bfloat16*>(p_.b) + first * p_.ldb;
    for (int64_t j = 0; j < p_.n; j += kBlock) {
      const int64_t cols = std::min(kBlock, p_.n - j);
      pack_pairs(dy + j, p_.ldb, count, cols, pairs, panel_);
      for (int64_t i = 0; i < p_.m; i += kBlock)
        block<kWrite>(i, j, std::min(kBlock, p_.m - i), cols, pairs);
    }
  }

  template <Write kWrite>
  void block(int64_t i, int64_t j, int64_t rows, int64_t cols, int64_t pairs) {
    const uint32_t* left = left_.as<uint32_t>() + i * kPairs;
    float* c = static_cast<float*>(p_.c) + i * p_.ldc + j;
    if (rows == kBlock && cols == kBlock) {
      Unit::template multiply_block<kWrite>(pairs, left, kPairs, panel_, kBlock, c, p_.ldc);
      return;
    }
    alignas(kVectorBytes) float edge[kBlock * kBlock];
    Unit::template multiply_block<Write::overwrite>(pairs, left, kPairs, panel_, kBlock, edge,
                                                    kBlock);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t q = 0; q < cols; ++q) {
        float& to = c[r * p_.ldc + q];
        to = edge[r * kBlock + q] + (kWrite == Write::accumulate ? to : 0.0f);
      }
  }

  const MatmulArgs& p_;
  int64_t rows_;
  CpuBuffer left_;  // aligned to a page
  alignas(kVectorBytes) uint32_t panel_[kPairs * kBlock];
};

template <class Unit, class T>
class InputGradient {
 public:
  explicit InputGradient(const MatmulArgs& p)
      : p_(p),
        pairs_(p.k / 2),
        blocks_(round_up(p.m, kBlock) / kBlock),
        right_(static_cast<size_t>(blocks_ * pairs_ * kBlock) * sizeof(uint32_t)) {}

  void run() {
    [[maybe_unused]] const typename Unit::Session session;
    for (int64_t i = 0; i < blocks_; ++i) pack_right(i);
    // Pairs along a row of bf16 are neighbours in memory.
    const auto* weights = static_cast<const uint32_t*>(p_.b);
    const int64_t stride = p_.ldb / 2;
    alignas(kVectorBytes) float turned[kBlock * kBlock], block[kBlock * kBlock];
    for (int64_t j = 0; j < p_.n; j += kBlock)
      for (int64_t i = 0; i < blocks_; ++i) {
        Unit::template multiply_block<Write::overwrite>(pairs_, weights + j * stride, stride,
                                                        right(i), kBlock, turned, kBlock);
        transpose(kBlock, kBlock, turned, kBlock, block, kBlock);
        write(i, j, block);
      }
  }

 private:
  uint32_t* right(int64_t block) const {
    return right_.template as<uint32_t>() + block * pairs_ * kBlock;
  }

  // right(block) [pairs, 32] = 32 rows of dY as columns; rows past the end are zero.
  void pack_right(int64_t block) {
    alignas(kVectorBytes) uint32_t rows[kBlock * kTileRows] = {};
    const auto* dy = static_cast<const bfloat16*>(p_.a) + block * kBlock * p_.lda;
    const int64_t count = std::min(kBlock, p_.m - block * kBlock);
    for (int64_t k = 0; k < pairs_; k += kTileRows) {
      for (int64_t r = 0; r < count; ++r)
        std::memcpy(rows + r * kTileRows, dy + r * p_.lda + 2 * k, kTileRows * sizeof(uint32_t));
      transpose(kBlock, kTileRows, rows, kTileRows, right(block) + k * kBlock, kBlock);
    }
  }

  void write(int64_t i, int64_t j, const float* block) {
    const int64_t count = std::min(kBlock, p_.m - i * kBlock);
    for (int64_t r = 0; r < count; ++r) {
      T* to = static_cast<T*>(p_.c) + (i * kBlock + r) * p_.ldc + j;
      for (int64_t c = 0; c < kBlock; c += kLanes<float>) {
        Vec<float> sum = load(block + r * kBlock + c);
        if (p_.accumulate) sum += load_any(to + c);
        store_any(to + c, sum);
      }
    }
  }

  const MatmulArgs& p_;
  int64_t pairs_, blocks_;
  CpuBuffer right_;
};

}  // namespace

bool tile_product(const MatmulArgs& p) {
  if (p.a_type != DType::bf16 || p.b_type != DType::bf16 || p.bias) return false;
  if (p.trans_a && !p.trans_b && p.c_type == DType::f32)
    return visit_tile_unit([&](auto unit) { WeightGradient<decltype(unit)>(p).run(); });
  bool few = !p.trans_a && p.trans_b && p.m <= kMostRows && p.n % kBlock == 0 &&
             p.k % kBlock == 0 && p.ldb % 2 == 0;
  if (!few || (p.c_type != DType::f32 && p.c_type != DType::bf16)) return false;
  return visit_tile_unit([&](auto unit) {
    if (p.c_type == DType::f32) {
      InputGradient<decltype(unit), float>(p).run();
    } else {
      InputGradient<decltype(unit), bfloat16>(p).run();
    }
  });
}

#else

bool tile_product(const MatmulArgs&) {
  return false;
}

#endif

}  // namespace adagate::cpu
