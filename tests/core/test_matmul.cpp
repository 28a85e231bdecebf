#include "core/base/threads.h"
#include "core/ops/grouped_linear.h"
#include "core/ops/matmul.h"
#include "tests/support/gradient_check.h"

using namespace adagate;
using namespace adagate::test;

namespace {

// op(a) op(b) by the definition, in f64.
Tensor plain_product(const Tensor& a, bool ta, const Tensor& b, bool tb) {
  int64_t m = ta ? a.cols() : a.rows(), k = ta ? a.rows() : a.cols();
  int64_t n = tb ? b.rows() : b.cols();
  Tensor c = Tensor::zeros({m, n}, DType::f64);
  const double *x = a.data<double>(), *y = b.data<double>();
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t l = 0; l < k; ++l)
        c.data<double>()[i * n + j] +=
            (ta ? x[l * m + i] : x[i * k + l]) * (tb ? y[j * k + l] : y[l * n + j]);
  return c;
}

}  // namespace

TEST_CASE("Products of all types and layouts agree with the definition") {
  constexpr int64_t m = 19, n = 33, k = 21;
  for (bool ta : {false, true})
    for (bool tb : {false, true})
      for (DType in_a : {DType::f32, DType::bf16, DType::f64})
        for (DType in_b : {DType::f32, DType::bf16, DType::f64})
          for (DType out : {DType::f32, DType::bf16, DType::f64})
            for (bool accumulate : {false, true}) {
              INFO("types " << name_of(in_a) << " " << name_of(in_b) << " " << name_of(out)
                            << ", transposed " << ta << tb << ", accumulate " << accumulate);
              Tensor a = random_normal(ta ? Shape{k, m} : Shape{m, k}, 1).to(in_a);
              Tensor b = random_normal(tb ? Shape{n, k} : Shape{k, n}, 2).to(in_b);
              Tensor c = Tensor::full({m, n}, out, 2.0);
              Tensor expected = plain_product(a.to(DType::f64), ta, b.to(DType::f64), tb);
              if (accumulate) {
                for (int64_t i = 0; i < m * n; ++i) expected.data<double>()[i] += 2.0;
              }
              matmul_into(c, {a, ta}, {b, tb}, accumulate);
              bool narrow = out == DType::bf16;
              CHECK(relative_error(c, expected) <= (narrow ? 5e-3 : 1e-6));
            }
}

TEST_CASE("Products of pieces of larger matrices") {
  Tensor a = random_normal({40, 64}, 1).to(DType::f32),
         b = random_normal({64, 48}, 2).to(DType::f32);
  Tensor whole = matmul({a}, {b}, DType::f32);
  // Columns 16..32 of the result from columns 16..32 of b, written in place.
  Tensor c = Tensor::full({40, 48}, DType::f32, 7.0);
  launch_on(Device{}, MatmulArgs{.a = a.raw(),
                                 .b = b.data<float>() + 16,
                                 .c = c.data<float>() + 16,
                                 .m = 40,
                                 .n = 16,
                                 .k = 64,
                                 .ldb = 48,
                                 .ldc = 48});
  for (int64_t i = 0; i < 40; ++i)
    for (int64_t j = 0; j < 48; ++j) {
      bool inside = j >= 16 && j < 32;
      float expected = inside ? whole.data<float>()[i * 48 + j] : 7.0f;
      REQUIRE(c.data<float>()[i * 48 + j] == Approx(expected).margin(1e-4));
    }
}

TEST_CASE("Products with empty sides") {
  Tensor none = Tensor::empty({0, 8}, DType::f32), w = random_normal({8, 4}, 1).to(DType::f32);
  CHECK(matmul({none}, {w}, DType::f32).numel() == 0);
  Tensor c = Tensor::full({8, 4}, DType::f32, 5.0);
  Tensor dy = Tensor::empty({0, 4}, DType::f32);
  matmul_into(c, transposed(none), {dy}, true);
  CHECK(c.to_floats() == std::vector<float>(32, 5.0f));
  matmul_into(c, transposed(none), {dy}, false);
  CHECK(c.to_floats() == std::vector<float>(32, 0.0f));
  CHECK_THROWS_AS(matmul({w}, {w}, DType::f32), Error);
}

TEST_CASE("A bias is added once, in each type") {
  for (DType type : {DType::f32, DType::bf16, DType::f64})
    for (int64_t k : {int64_t{0}, int64_t{6}}) {
      Tensor a = Tensor::full({3, k}, type, 1.0), b = Tensor::full({k, 2}, type, 0.5);
      Tensor bias = Tensor::full({2}, type, 0.25), c = Tensor::full({3, 2}, type, 9.0);
      launch_on(Device{}, MatmulArgs{.a = a.raw(),
                                     .b = b.raw(),
                                     .c = c.raw(),
                                     .bias = bias.raw(),
                                     .m = 3,
                                     .n = 2,
                                     .k = k,
                                     .a_type = type,
                                     .b_type = type,
                                     .c_type = type,
                                     .bias_type = type});
      CHECK(c.to_floats() == std::vector<float>(6, static_cast<float>(k) * 0.5f + 0.25f));
    }
}

TEST_CASE("Products inside a parallel region equal those outside") {
  constexpr int kProducts = 16;
  std::vector<Tensor> a, b, outside(kProducts), inside(kProducts);
  for (uint64_t i = 0; i < kProducts; ++i) {
    a.push_back(random_normal({70 + static_cast<int64_t>(i % 3), 96}, i).to(DType::f32));
    b.push_back(random_normal({96, 80}, 100 + i).to(DType::f32));
    outside[i] = matmul({a[i]}, {b[i]}, DType::f32);
  }
#pragma omp parallel for schedule(dynamic, 1)
  for (int i = 0; i < kProducts; ++i) {
    auto j = static_cast<size_t>(i);
    inside[j] = matmul({a[j]}, {b[j]}, DType::f32);
  }
  for (size_t i = 0; i < kProducts; ++i) CHECK(relative_error(inside[i], outside[i]) < 1e-6);
}

TEST_CASE("Experts without rows get a zero weight gradient, or keep what was added before") {
  Tensor x = random_normal({6, 8}, 1).to(DType::f32), dy = random_normal({6, 4}, 2).to(DType::f32);
  int64_t offsets[] = {0, 0, 6, 6};
  Tensor dw = Tensor::full({3, 8, 4}, DType::f32, 3.0);
  GroupedMatmulArgs args{.kind = GroupedMatmulArgs::Kind::weights,
                         .a = x.raw(),
                         .b = dy.raw(),
                         .c = dw.raw(),
                         .offsets = offsets,
                         .groups = 3,
                         .k = 8,
                         .m = 4,
                         .accumulate = true};
  launch_on(Device{}, args);
  CHECK(dw.slice(0, 1).to_floats() == std::vector<float>(32, 3.0f));
  args.accumulate = false;
  launch_on(Device{}, args);
  CHECK(dw.slice(0, 1).to_floats() == std::vector<float>(32, 0.0f));
  CHECK(dw.slice(2, 3).to_floats() == std::vector<float>(32, 0.0f));
  CHECK(relative_error(dw.slice(1, 2), matmul(transposed(x), {dy}, DType::f32)) < 1e-6);
}
