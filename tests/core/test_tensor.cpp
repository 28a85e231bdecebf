#include <bit>
#include <cmath>
#include <limits>

#include "core/tensor/tensor.h"
#include "tests/support/catch.h"

using namespace adagate;

TEST_CASE("a slice is a view of rows that are there") {
  Tensor x = Tensor::from(std::vector<int32_t>{0, 1, 2, 3, 4, 5}, {3, 2});
  CHECK(x.slice(1, 3).to_doubles() == std::vector<double>{2, 3, 4, 5});
  CHECK(x.slice(3, 3).numel() == 0);
  x.slice(1, 2).fill(9);
  CHECK(x.to_doubles() == std::vector<double>{0, 1, 9, 9, 4, 5});
  CHECK_THROWS_WITH(x.slice(1, 4), "slice [1, 4) of a tensor of shape [3, 2]");
  CHECK_THROWS_AS(x.slice(4, 4), Error);
  CHECK_THROWS_AS(x.slice(-1, 2), Error);
  CHECK_THROWS_AS(x.slice(2, 1), Error);
  CHECK_THROWS_AS(Tensor::full({}, DType::f32, 1.0).slice(0, 1), Error);
}

TEST_CASE("bf16 holds the nearest number, the even one of two, and NaN stays NaN") {
  auto bits = [](uint32_t u) { return bfloat16(std::bit_cast<float>(u)).bits; };
  // Every bf16 number, with what may follow in an f32: nothing, less than, exactly, and more than
  // half of the spacing.
  int wrong = 0;
  for (uint32_t upper = 0; upper < 0x10000; ++upper) {
    const uint32_t u = upper << 16;
    const bool nan = (u & 0x7fffffffu) > 0x7f800000u, infinite = (u & 0x7fffffffu) == 0x7f800000u;
    for (uint32_t rest : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const uint16_t got = bits(u | rest);
      if (nan || (infinite && rest > 0)) {
        wrong += !std::isnan(static_cast<float>(bfloat16(std::bit_cast<float>(u | rest))));
        wrong += got >> 15 != upper >> 15;  // the sign
      } else {
        const bool up = rest > 0x8000u || (rest == 0x8000u && upper % 2 == 1);
        wrong += got != upper + (up ? 1 : 0);
      }
    }
  }
  CHECK(wrong == 0);
  CHECK(bits(0x7f7fffffu) == 0x7f80u);  // the largest f32 becomes infinity
  CHECK(static_cast<float>(bfloat16(-0.0f)) == 0.0f);
}
