// The matrix tiles of a processor (Intel AMX): products of bf16 pairs at many times the rate of the
// vectors' dot products. Whether they are there is found at run time; elsewhere the same code runs
// on tiles in memory, so that it can be tested on any machine with bf16 dot products.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/ops/cpu/tile_product.h"

namespace adagate {

enum class MatrixTiles : uint8_t { none, amx, emulated };

// What products on tiles run on: amx where the processor and the system have it. ADAGATE_AMX=0 in
// the environment leaves it alone, to measure what it brings.
MatrixTiles matrix_tiles();
// For tests and measurements; amx only where it is. Not while a kernel runs.
void use_matrix_tiles(MatrixTiles tiles);

#if ADAGATE_BF16_PRODUCTS

// A tile has 16 rows of 64 bytes: f32 sums [16, 16], a left operand of 16 rows x 16 pairs, a right
// one of 16 pairs x 16 columns. Sums are a block of 2 x 2 tiles; sum (i, j) adds left i * right j.
constexpr int kTileRows = 16;

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define ADAGATE_AMX 1

// The registers tmm0 to tmm7. They are named in assembly text, since compilers that know the
// intrinsics give them to functions compiled for AMX alone, which could not be inlined here.
class AmxTiles {
 public:
  // Tiles are usable while one lives, on its thread; library kernels called meanwhile may take
  // them away.
  class Session {
   public:
    Session() {
      struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
      } layout;
      asm volatile("ldtilecfg %0" ::"m"(layout));
    }
    ~Session() { asm volatile("tilerelease"); }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
  };

#define ADAGATE_TILE_LOAD(tile) \
  asm volatile("tileloadd (%0,%1,1), %%tmm" tile ::"r"(from), "r"(row_bytes(stride)) : "memory")
#define ADAGATE_TILE_STORE(tile) \
  asm volatile("tilestored %%tmm" tile ", (%0,%1,1)" ::"r"(to), "r"(row_bytes(stride)) : "memory")
#define ADAGATE_TILE_ADD(sum, left, right) \
  asm volatile("tdpbf16ps %%tmm" right ", %%tmm" left ", %%tmm" sum ::)

  template <int kLeft, int kRight>
  static void zero() {
    if constexpr (kLeft == 0 && kRight == 0) asm volatile("tilezero %%tmm0" ::);
    if constexpr (kLeft == 0 && kRight == 1) asm volatile("tilezero %%tmm1" ::);
    if constexpr (kLeft == 1 && kRight == 0) asm volatile("tilezero %%tmm2" ::);
    if constexpr (kLeft == 1 && kRight == 1) asm volatile("tilezero %%tmm3" ::);
  }
  template <int kLeft, int kRight>
  static void load_sum(const float* from, int64_t stride) {
    if constexpr (kLeft == 0 && kRight == 0) ADAGATE_TILE_LOAD("0");
    if constexpr (kLeft == 0 && kRight == 1) ADAGATE_TILE_LOAD("1");
    if constexpr (kLeft == 1 && kRight == 0) ADAGATE_TILE_LOAD("2");
    if constexpr (kLeft == 1 && kRight == 1) ADAGATE_TILE_LOAD("3");
  }
  template <int kLeft, int kRight>
  static void store_sum(float* to, int64_t stride) {
    if constexpr (kLeft == 0 && kRight == 0) ADAGATE_TILE_STORE("0");
    if constexpr (kLeft == 0 && kRight == 1) ADAGATE_TILE_STORE("1");
    if constexpr (kLeft == 1 && kRight == 0) ADAGATE_TILE_STORE("2");
    if constexpr (kLeft == 1 && kRight == 1) ADAGATE_TILE_STORE("3");
  }
  template <int kLeft>
  static void load_left(const uint32_t* from, int64_t stride) {
    if constexpr (kLeft == 0) ADAGATE_TILE_LOAD("4");
    if constexpr (kLeft == 1) ADAGATE_TILE_LOAD("5");
  }
  template <int kRight>
  static void load_right(const uint32_t* from, int64_t stride) {
    if constexpr (kRight == 0) ADAGATE_TILE_LOAD("6");
    if constexpr (kRight == 1) ADAGATE_TILE_LOAD("7");
  }
  template <int kLeft, int kRight>
  static void add() {
    if constexpr (kLeft == 0 && kRight == 0) ADAGATE_TILE_ADD("0", "4", "6");
    if constexpr (kLeft == 0 && kRight == 1) ADAGATE_TILE_ADD("1", "4", "7");
    if constexpr (kLeft == 1 && kRight == 0) ADAGATE_TILE_ADD("2", "5", "6");
    if constexpr (kLeft == 1 && kRight == 1) ADAGATE_TILE_ADD("3", "5", "7");
  }
#undef ADAGATE_TILE_LOAD
#undef ADAGATE_TILE_STORE
#undef ADAGATE_TILE_ADD

 private:
  static int64_t row_bytes(int64_t stride) {
    return 4 * stride;
  }
};
#endif

// The same in memory, with the instruction's order of sums: pair by pair, its first number first.
class EmulatedTiles {
 public:
  class Session {
   public:
    // Tiles hold no numbers, so that a sum that was never set is noticed.
    Session();
    ~Session() { active() = false; }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
  };
  template <int kLeft, int kRight>
  static void zero() {
    std::fill_n(sum(kLeft, kRight), 256, 0.0f);
  }
  template <int kLeft, int kRight>
  static void load_sum(const float* from, int64_t stride) {
    load_rows(from, stride, sum(kLeft, kRight));
  }
  template <int kLeft, int kRight>
  static void store_sum(float* to, int64_t stride) {
    for (int r = 0; r < kTileRows; ++r)
      std::copy_n(sum(kLeft, kRight) + 16 * r, 16, to + r * stride);
  }
  template <int kLeft>
  static void load_left(const uint32_t* from, int64_t stride) {
    load_rows(from, stride, operand(kLeft));
  }
  template <int kRight>
  static void load_right(const uint32_t* from, int64_t stride) {
    load_rows(from, stride, operand(2 + kRight));
  }
  template <int kLeft, int kRight>
  static void add() {
    multiply(operand(kLeft), operand(2 + kRight), sum(kLeft, kRight));
  }

 private:
  template <class E>
  static void load_rows(const E* from, int64_t stride, E* to) {
    check_session();
    for (int r = 0; r < kTileRows; ++r) std::copy_n(from + r * stride, 16, to + 16 * r);
  }
  static void multiply(const uint32_t* left, const uint32_t* right, float* sum);
  static void check_session();
  static bool& active();
  static float* sum(int left, int right);  // [16, 16]
  static uint32_t* operand(int i);         // [16, 16]: left 0, left 1, right 0, right 1
};

// c [kHigh * 16, kWide * 16] (+)= a b on tiles. a is [rows, depth] pairs by row, b [depth, cols].
// The last tile of columns takes `more` steps of depth beyond those of all. Both are multiples of
// 16; what they reach must hold numbers, zeros where there is nothing to add.
template <class Tiles, Write kWrite, int kHigh, int kWide>
inline void multiply_tiles(int64_t depth, int64_t more, const uint32_t* a, int64_t lda,
                           const uint32_t* b, int64_t ldb, float* c, int64_t ldc) {
  constexpr int kLast = kWide - 1;
  auto for_sums = [](auto&& f) {
    f.template operator()<0, 0>();
    if constexpr (kWide == 2) f.template operator()<0, 1>();
    if constexpr (kHigh == 2) f.template operator()<1, 0>();
    if constexpr (kHigh == 2 && kWide == 2) f.template operator()<1, 1>();
  };
  for_sums([&]<int kLeft, int kRight>() {
    if constexpr (kWrite == Write::overwrite) {
      Tiles::template zero<kLeft, kRight>();
    } else {
      Tiles::template load_sum<kLeft, kRight>(c + kLeft * 16 * ldc + kRight * 16, ldc);
    }
  });
  auto load_lefts = [&](int64_t k) {
    Tiles::template load_left<0>(a + k, lda);
    if constexpr (kHigh == 2) Tiles::template load_left<1>(a + 16 * lda + k, lda);
  };
  int64_t k = 0;
  for (; k < depth; k += kTileRows) {
    load_lefts(k);
    Tiles::template load_right<0>(b + k * ldb, ldb);
    if constexpr (kWide == 2) Tiles::template load_right<1>(b + k * ldb + 16, ldb);
    for_sums([]<int kLeft, int kRight>() { Tiles::template add<kLeft, kRight>(); });
  }
  for (; k < depth + more; k += kTileRows) {
    load_lefts(k);
    Tiles::template load_right<kLast>(b + k * ldb + kLast * 16, ldb);
    Tiles::template add<0, kLast>();
    if constexpr (kHigh == 2) Tiles::template add<1, kLast>();
  }
  for_sums([&]<int kLeft, int kRight>() {
    Tiles::template store_sum<kLeft, kRight>(c + kLeft * 16 * ldc + kRight * 16, ldc);
  });
}

// The products of attention on tiles: see VectorUnit.
template <class Tiles>
struct TileUnit {
  using Session = typename Tiles::Session;
  static constexpr int kRows = kTileRows;
  static constexpr int64_t kDepthStep = kTileRows;
  static constexpr bool kLeftByRow = true;

  template <Left kLeft, Write kWrite, int kWide>
  static void multiply(int64_t depth, int64_t more, const uint32_t* a, int64_t lda,
                       const uint32_t* b, int64_t ldb, float* c, int64_t ldc) {
    static_assert(kLeft == Left::row_major);
    multiply_tiles<Tiles, kWrite, 1, kWide>(depth, more, a, lda, b, ldb, c, ldc);
  }
  // c [32, 32] (+)= a [32, depth] b [depth, 32], at the tiles' full rate.
  template <Write kWrite>
  static void multiply_block(int64_t depth, const uint32_t* a, int64_t lda, const uint32_t* b,
                             int64_t ldb, float* c, int64_t ldc) {
    multiply_tiles<Tiles, kWrite, 2, 2>(depth, 0, a, lda, b, ldb, c, ldc);
  }
};

// Calls f(unit) with the TileUnit that products run on here, and tells whether there is one.
template <class F>
bool visit_tile_unit(F&& f) {
  switch (matrix_tiles()) {
#if ADAGATE_AMX
    case MatrixTiles::amx:
      f(TileUnit<AmxTiles>{});
      return true;
#endif
    case MatrixTiles::emulated:
      f(TileUnit<EmulatedTiles>{});
      return true;
    default:
      return false;
  }
}
#endif

}  // namespace adagate
