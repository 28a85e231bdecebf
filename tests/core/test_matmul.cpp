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

// A matrix in the middle of a larger one, of random numbers.
class Piece {
 public:
  Piece(int64_t rows, int64_t cols, uint64_t salt, DType type)
      : rows_(rows), cols_(cols), whole_(random_normal({rows + 3, cols + 12}, salt).to(type)) {}

  int64_t stride() const { return whole_.cols(); }
  const Tensor& whole() const { return whole_; }
  void* raw() const {
    return static_cast<char*>(whole_.raw()) + at(0) * static_cast<int64_t>(size_of(whole_.dtype()));
  }
  // The piece alone, f64.
  Tensor values() const {
    Tensor all = whole_.to(DType::f64), piece = Tensor::empty({rows_, cols_}, DType::f64);
    for (int64_t r = 0; r < rows_; ++r)
      std::copy_n(all.data<double>() + at(r), cols_, piece.data<double>() + r * cols_);
    return piece;
  }
  void put(const Tensor& piece) {
    Tensor all = whole_.to(DType::f64).clone();
    for (int64_t r = 0; r < rows_; ++r)
      std::copy_n(piece.data<double>() + r * cols_, cols_, all.data<double>() + at(r));
    whole_ = all.to(whole_.dtype());
  }

 private:
  int64_t at(int64_t row) const { return (row + 2) * stride() + 5; }
  int64_t rows_, cols_;
  Tensor whole_;
};

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
              // The sums are made in the type of the result, at least in f32.
              double bound = out == DType::bf16 ? 5e-3 : out == DType::f32 ? 1e-6 : 1e-14;
              CHECK(relative_error(c, expected) <= bound);
            }
}

TEST_CASE("Products of pieces of larger matrices, into a piece") {
  constexpr int64_t m = 19, n = 33, k = 21;
  struct Types {
    DType a, b, c;
  };
  constexpr DType f32 = DType::f32, bf16 = DType::bf16, f64 = DType::f64;
  for (Types t : {Types{f32, f32, f32},
                  {bf16, bf16, f32},
                  {bf16, bf16, bf16},
                  {bf16, f32, f32},
                  {f32, bf16, bf16},
                  {f64, f64, f64},
                  {f32, f32, f64},
                  {f64, bf16, f32}})
    for (bool ta : {false, true})
      for (bool tb : {false, true})
        for (bool accumulate : {false, true}) {
          INFO("types " << name_of(t.a) << " " << name_of(t.b) << " " << name_of(t.c)
                        << ", transposed " << ta << tb << ", accumulate " << accumulate);
          Piece a(ta ? k : m, ta ? m : k, 1, t.a), b(tb ? n : k, tb ? k : n, 2, t.b);
          Piece c(m, n, 3, t.c), before(m, n, 3, t.c);
          launch_on(Device{}, MatmulArgs{.a = a.raw(),
                                         .b = b.raw(),
                                         .c = c.raw(),
                                         .m = m,
                                         .n = n,
                                         .k = k,
                                         .trans_a = ta,
                                         .trans_b = tb,
                                         .lda = a.stride(),
                                         .ldb = b.stride(),
                                         .ldc = c.stride(),
                                         .a_type = t.a,
                                         .b_type = t.b,
                                         .c_type = t.c,
                                         .accumulate = accumulate});
          Tensor expected = plain_product(a.values(), ta, b.values(), tb), old = before.values();
          for (int64_t i = 0; accumulate && i < m * n; ++i)
            expected.data<double>()[i] += old.data<double>()[i];
          CHECK(relative_error(c.values(), expected) <= (t.c == bf16 ? 5e-3 : 1e-6));
          // Around the piece nothing has changed.
          before.put(c.values());
          CHECK(before.whole().to_doubles() == c.whole().to_doubles());
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

TEST_CASE("What fails in one of the experts' products reaches the caller") {
  Tensor x = random_normal({6, 8}, 1).to(DType::f32),
         w = random_normal({3, 8, 4}, 2).to(DType::f32);
  Tensor y = Tensor::zeros({6, 4}, DType::f32), bias = Tensor::zeros({3, 4}, DType::f32);
  int64_t offsets[] = {0, 0, 6, 6};  // one product
  CHECK_THROWS_WITH(launch_on(Device{}, GroupedMatmulArgs{.kind = GroupedMatmulArgs::Kind::rows,
                                                          .a = x.raw(),
                                                          .b = w.raw(),
                                                          .c = y.raw(),
                                                          .bias = bias.raw(),
                                                          .offsets = offsets,
                                                          .groups = 3,
                                                          .k = 8,
                                                          .m = 4,
                                                          .accumulate = true}),
                    Catch::Matchers::Contains("bias can't be added to an accumulated product"));
}
