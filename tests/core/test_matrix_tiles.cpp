// Products on matrix tiles against sums written out here.
#include "core/base/error.h"
#include "core/ops/cpu/matrix_tiles.h"
#include "core/ops/grouped_linear.h"
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

TEST_CASE("Experts' weight gradients in bf16, on vectors and on matrix tiles") {
  // Whole numbers: every product and every sum is exact.
  const std::vector<int64_t> offsets{0, 1, 1, 32, 95, 620, 1700};  // groups of 0 to 1,080 rows
  const int64_t groups = static_cast<int64_t>(offsets.size()) - 1, rows = offsets.back();
  auto whole = [](int64_t r, int64_t c) { return static_cast<double>((r * 7 + c * 3) % 9 - 4); };
  for (auto [in, out] : {std::pair<int64_t, int64_t>{5, 70}, {32, 64}, {70, 33}, {130, 1}}) {
    Tensor x = Tensor::empty({rows, in}, DType::f64), dy = Tensor::empty({rows, out}, DType::f64);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < in; ++c) x.data<double>()[r * in + c] = whole(r, c);
      for (int64_t c = 0; c < out; ++c) dy.data<double>()[r * out + c] = whole(c, r);
    }
    for (bool accumulate : {false, true}) {
      std::vector<double> expected(static_cast<size_t>(groups * in * out), accumulate ? 2.0 : 0.0);
      for (int64_t g = 0; g < groups; ++g)
        for (int64_t r = offsets[static_cast<size_t>(g)]; r < offsets[static_cast<size_t>(g) + 1];
             ++r)
          for (int64_t i = 0; i < in; ++i)
            for (int64_t j = 0; j < out; ++j)
              expected[static_cast<size_t>((g * in + i) * out + j)] += whole(r, i) * whole(j, r);
      Tensor a = x.to(DType::bf16), b = dy.to(DType::bf16);
      for (MatrixTiles tiles : tested_tiles()) {
        INFO(name_of(tiles) << ", " << in << " x " << out << ", accumulate " << accumulate);
        UseTiles use(tiles);
        Tensor c = Tensor::full({groups, in, out}, DType::f32, 2.0);
        launch_on(Device{}, GroupedMatmulArgs{.kind = GroupedMatmulArgs::Kind::weights,
                                              .a = a.raw(),
                                              .b = b.raw(),
                                              .c = c.raw(),
                                              .offsets = offsets.data(),
                                              .groups = groups,
                                              .k = in,
                                              .m = out,
                                              .a_type = DType::bf16,
                                              .b_type = DType::bf16,
                                              .accumulate = accumulate});
        CHECK(c.to_doubles() == expected);
      }
    }
  }
}

TEST_CASE("Experts' input gradients in bf16, on vectors and on matrix tiles") {
  const std::vector<int64_t> offsets{0, 3, 3, 35, 99, 227, 400};  // up to 128 rows, and more
  const int64_t groups = static_cast<int64_t>(offsets.size()) - 1, rows = offsets.back();
  // Whole numbers and sums that bf16 holds exactly.
  auto whole = [](int64_t r, int64_t c) { return static_cast<double>((r * 7 + c * 3) % 3 - 1); };
  for (auto [in, out] : {std::pair<int64_t, int64_t>{32, 32}, {64, 96}, {33, 32}, {32, 30}}) {
    Tensor dy = Tensor::empty({rows, out}, DType::f64);
    Tensor w = Tensor::empty({groups, in, out}, DType::f64);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < out; ++c) dy.data<double>()[r * out + c] = whole(r, c);
    for (int64_t i = 0; i < w.numel(); ++i) w.data<double>()[i] = whole(i % 11, i % 13);
    for (bool accumulate : {false, true}) {
      std::vector<double> expected;
      for (int64_t g = 0; g < groups; ++g)
        for (int64_t r = offsets[static_cast<size_t>(g)]; r < offsets[static_cast<size_t>(g) + 1];
             ++r)
          for (int64_t i = 0; i < in; ++i) {
            double sum = accumulate ? 2 : 0;
            for (int64_t j = 0; j < out; ++j)
              sum += whole(r, j) * w.data<double>()[(g * in + i) * out + j];
            expected.push_back(sum);
          }
      Tensor a = dy.to(DType::bf16), b = w.to(DType::bf16);
      for (MatrixTiles tiles : tested_tiles())
        for (DType type : {DType::f32, DType::bf16}) {
          INFO(name_of(tiles) << ", " << in << " x " << out << ", accumulate " << accumulate << ", "
                              << adagate::name_of(type));
          UseTiles use(tiles);
          Tensor c = Tensor::full({rows, in}, type, 2.0);
          launch_on(Device{}, GroupedMatmulArgs{.a = a.raw(),
                                                .b = b.raw(),
                                                .c = c.raw(),
                                                .offsets = offsets.data(),
                                                .groups = groups,
                                                .k = out,
                                                .m = in,
                                                .trans_b = true,
                                                .a_type = DType::bf16,
                                                .b_type = DType::bf16,
                                                .c_type = type,
                                                .accumulate = accumulate});
          CHECK(c.to_doubles() == expected);
        }
    }
  }
}
