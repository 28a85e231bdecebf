// Products on matrix tiles against sums written out here.
#include "core/base/error.h"
#include "core/ops/cpu/matrix_tiles.h"
#include "tests/support/catch.h"
#include "tests/support/tested_tiles.h"

using namespace adagate;
using namespace adagate::test;

#if ADAGATE_BF16_PRODUCTS
namespace {

float low(uint32_t pair) {
  return std::bit_cast<float>(pair << 16);
}
float high(uint32_t pair) {
  return std::bit_cast<float>(pair & 0xffff0000u);
}

// Pairs of small whole numbers, whose products and sums are exact.
std::vector<uint32_t> pairs(int64_t count, uint32_t seed) {
  std::vector<uint32_t> made;
  for (int64_t i = 0; i < count; ++i) {
    seed = seed * 1664525u + 1013904223u;
    auto number = [&](int shift) {
      float x = static_cast<float>(static_cast<int>(seed >> shift & 15u) - 7);
      return std::bit_cast<uint32_t>(x);
    };
    made.push_back(number(8) >> 16 | (number(20) & 0xffff0000u));
  }
  return made;
}

// Rows lie further apart than they are long, and what lies between them stays.
template <class Tiles, Write kWrite, int kHigh, int kWide>
void check_product(int64_t depth, int64_t more) {
  INFO("depth " << depth << " + " << more << ", " << kHigh << " x " << kWide << " tiles");
  constexpr int64_t kRows = kHigh * 16, kCols = kWide * 16;
  const int64_t all = depth + more, lda = all + 3, ldb = kCols + 5, ldc = kCols + 2;
  const auto a = pairs(kRows * lda, 1), b = pairs(std::max<int64_t>(all, 1) * ldb, 2);
  std::vector<float> c(static_cast<size_t>(kRows * ldc), 3.0f), expected = c;
  for (int64_t i = 0; i < kRows; ++i)
    for (int64_t j = 0; j < kCols; ++j) {
      float& sum = expected[static_cast<size_t>(i * ldc + j)];
      if (kWrite == Write::overwrite) sum = 0;
      for (int64_t k = 0; k < (j >= kCols - 16 ? all : depth); ++k) {
        uint32_t x = a[static_cast<size_t>(i * lda + k)], y = b[static_cast<size_t>(k * ldb + j)];
        sum += low(x) * low(y) + high(x) * high(y);
      }
    }
  {
    const typename Tiles::Session session;
    multiply_tiles<Tiles, kWrite, kHigh, kWide>(depth, more, a.data(), lda, b.data(), ldb, c.data(),
                                                ldc);
  }
  CHECK(c == expected);
}

template <class Tiles>
void check_products() {
  for (int64_t depth : {0, 16, 48})
    for (int64_t more : {0, 16, 32}) {
      check_product<Tiles, Write::overwrite, 1, 1>(depth, more);
      check_product<Tiles, Write::accumulate, 1, 1>(depth, more);
      check_product<Tiles, Write::overwrite, 1, 2>(depth, more);
      check_product<Tiles, Write::accumulate, 1, 2>(depth, more);
      check_product<Tiles, Write::overwrite, 2, 1>(depth, more);
      check_product<Tiles, Write::overwrite, 2, 2>(depth, more);
      check_product<Tiles, Write::accumulate, 2, 2>(depth, more);
    }
}

}  // namespace

TEST_CASE("Products on matrix tiles") {
  check_products<EmulatedTiles>();
#if ADAGATE_AMX
  if (matrix_tiles() == MatrixTiles::amx) check_products<AmxTiles>();
#endif
}
#endif

TEST_CASE("Matrix tiles that this machine lacks are refused") {
  UseTiles before(matrix_tiles());
  use_matrix_tiles(MatrixTiles::none);
  CHECK(matrix_tiles() == MatrixTiles::none);
  bool there = true;
  try {
    use_matrix_tiles(MatrixTiles::amx);
  } catch (const Error&) {
    there = false;
  }
  CHECK((matrix_tiles() == MatrixTiles::amx) == there);
}
