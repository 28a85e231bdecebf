// Matrix products on the CUDA backend against the CPU's: mixes of types, transpositions, strides
// and addresses that the ops don't ask for; the products of groups in both ways.
#include <cstdlib>

#include "core/ops/grouped_linear.h"
#include "core/ops/matmul.h"
#include "tests/cuda/gpu.h"
#include "tests/support/catch.h"
#include "tests/support/gradient_check.h"
#include "tests/support/op_case.h"

using namespace adagate;
using namespace adagate::test;

namespace {

struct Types {
  DType a, b, c, bias;
};

double tolerance_of(DType type) {
  return type == DType::f64 ? 1e-12 : type == DType::bf16 ? 1.2e-2 : 3e-6;
}

Tensor numbers(int64_t n, uint64_t salt, DType type) {
  return random_normal({n}, salt).to(type);
}

void* at(const Tensor& t, int64_t i) {
  return static_cast<std::byte*>(t.raw()) + static_cast<size_t>(i) * size_of(t.dtype());
}

// Sizes, elements between the rows beside the matrix's, and of the matrix's first.
struct Sizes {
  int64_t m, n, k, apart, first;
};
enum class Mode : uint8_t { plain, accumulate, bias };

struct Operands {
  Tensor a, b, c, bias;

  Operands to(Device device) const {
    return {a.to(device), b.to(device), c.clone().to(device), bias.to(device)};
  }
};

// The memory that c stands in, after the product.
Tensor multiplied(MatmulArgs p, const Operands& host, int64_t first, Mode mode, Device device) {
  const Operands on = host.to(device);
  p.a = at(on.a, first);
  p.b = at(on.b, first);
  p.c = at(on.c, first);
  p.bias = mode == Mode::bias ? at(on.bias, first) : nullptr;
  p.accumulate = mode == Mode::accumulate;
  launch_on(device, p);
  return on.c.to(Device{});
}

void check_product(const Types& types, const Sizes& z, bool trans_a, bool trans_b, Mode mode) {
  INFO(name_of(types.a) << " x " << name_of(types.b) << " -> " << name_of(types.c) << ", " << z.m
                        << " x " << z.n << " x " << z.k << ", transposed " << trans_a << trans_b
                        << ", mode " << static_cast<int>(mode));
  MatmulArgs p{.m = z.m,
               .n = z.n,
               .k = z.k,
               .trans_a = trans_a,
               .trans_b = trans_b,
               .lda = (trans_a ? z.m : z.k) + z.apart,
               .ldb = (trans_b ? z.k : z.n) + z.apart,
               .ldc = z.n + z.apart,
               .a_type = types.a,
               .b_type = types.b,
               .c_type = types.c,
               .bias_type = types.bias};
  const Operands host{numbers((trans_a ? z.k : z.m) * p.lda + z.first, 1, types.a),
                      numbers((trans_b ? z.n : z.k) * p.ldb + z.first, 2, types.b),
                      numbers(z.m * p.ldc + z.first, 3, types.c),
                      numbers(z.n + z.first, 4, types.bias)};
  const Tensor expected = multiplied(p, host, z.first, mode, {});
  const Tensor got = multiplied(p, host, z.first, mode, gpu());
  CHECK(relative_error(got, expected) <= tolerance_of(types.c));
}

void check_products(const Types& types, const Sizes& sizes) {
  for (bool trans_a : {false, true})
    for (bool trans_b : {false, true})
      for (Mode mode : {Mode::plain, Mode::accumulate, Mode::bias})
        check_product(types, sizes, trans_a, trans_b, mode);
}

constexpr DType f32 = DType::f32, bf16 = DType::bf16, f64 = DType::f64;

}  // namespace

TEST_CASE("CUDA: products of any types, transposed, in rows anywhere") {
  const Types types[] = {
      {f32, f32, f32, f32},    {bf16, bf16, bf16, bf16}, {bf16, bf16, f32, f32},
      {f64, f64, f64, f64},    {bf16, f32, f32, f32},    {f32, bf16, bf16, f64},
      {bf16, bf16, f64, bf16}, {f64, f32, bf16, f32},    {bf16, bf16, bf16, f32}};
  const Sizes sizes[] = {{5, 7, 3, 0, 0},    {130, 72, 48, 0, 0}, {65, 129, 17, 3, 1},
                         {1, 64, 200, 8, 8}, {64, 1, 33, 0, 1},   {200, 136, 72, 8, 0}};
  for (const Types& t : types)
    for (const Sizes& z : sizes) check_products(t, z);
}

TEST_CASE("CUDA: empty products are zeros or the bias") {
  for (const Types& t : {Types{f32, f32, f32, f32}, Types{bf16, bf16, bf16, f32}})
    for (const Sizes& z : {Sizes{3, 70, 0, 0, 0}, Sizes{0, 4, 5, 0, 0}, Sizes{4, 0, 5, 0, 0}})
      check_products(t, z);
}

namespace {

struct Groups {
  std::vector<int64_t> offsets;
  int64_t k, m;
  bool host_knows;
};

Tensor grouped(GroupedMatmulArgs p, const Operands& host, const Groups& groups, Mode mode,
               Device device) {
  const Operands on = host.to(device);
  const auto count = static_cast<int64_t>(groups.offsets.size());
  const Tensor offsets = Tensor::from(std::span<const int64_t>(groups.offsets), {count}).to(device);
  p.a = on.a.raw();
  p.b = on.b.raw();
  p.c = on.c.raw();
  p.bias = mode == Mode::bias ? on.bias.raw() : nullptr;
  p.offsets = offsets.data<int64_t>();
  p.host_offsets = groups.host_knows ? groups.offsets.data() : nullptr;
  p.accumulate = mode == Mode::accumulate;
  launch_on(device, p);
  return on.c.to(Device{});
}

void check_groups(const Types& types, const Groups& groups, GroupedMatmulArgs::Kind kind,
                  bool trans_b, Mode mode) {
  constexpr int64_t kRoom = 9;  // rows that are nobody's
  const auto count = static_cast<int64_t>(groups.offsets.size()) - 1;
  const bool rows = kind == GroupedMatmulArgs::Kind::rows;
  const GroupedMatmulArgs p{.kind = kind,
                            .rows = groups.offsets.back() + kRoom,
                            .groups = count,
                            .k = groups.k,
                            .m = groups.m,
                            .trans_b = trans_b,
                            .a_type = types.a,
                            .b_type = types.b,
                            .c_type = types.c,
                            .bias_type = types.bias};
  const int64_t weights = count * p.k * p.m;
  const Operands host{
      numbers(p.rows * p.k, 1, types.a), numbers(rows ? weights : p.rows * p.m, 2, types.b),
      numbers(rows ? p.rows * p.m : weights, 3, types.c), numbers(count * p.m, 4, types.bias)};
  INFO(name_of(types.a) << " x " << name_of(types.b) << " -> " << name_of(types.c) << ", " << count
                        << " groups of " << p.rows << " rows, " << p.k << " x " << p.m << ", rows "
                        << rows << trans_b << ", mode " << static_cast<int>(mode) << ", host knows "
                        << groups.host_knows);
  const Tensor expected = grouped(p, host, groups, mode, {});
  const Tensor got = grouped(p, host, groups, mode, gpu());
  CHECK(relative_error(got, expected) <= tolerance_of(types.c));
}

void check_all_kinds(const Types& types, const Groups& groups) {
  using Kind = GroupedMatmulArgs::Kind;
  for (Mode mode : {Mode::plain, Mode::accumulate, Mode::bias}) {
    check_groups(types, groups, Kind::rows, false, mode);
    check_groups(types, groups, Kind::rows, true, mode);
    if (mode != Mode::bias) check_groups(types, groups, Kind::weights, false, mode);
  }
}

}  // namespace

TEST_CASE("CUDA: products of groups, in one launch and one by one") {
  const Types types[] = {{f32, f32, f32, f32},
                         {bf16, bf16, bf16, bf16},
                         {bf16, bf16, f32, f32},
                         {f64, f64, f64, f64},
                         {bf16, f32, f32, f32}};
  const std::vector<int64_t> offsets[] = {
      {0, 70, 70, 71, 135, 168}, {0, 0, 0, 0}, {0, 130}, {0, 3, 300, 300, 301}};
  for (const Types& t : types)
    for (const auto& o : offsets)
      for (auto [k, m] : {std::pair<int64_t, int64_t>{33, 20}, {64, 136}})
        for (const char* way : {"own", "loop"}) {
          setenv("ADAGATE_CUDA_GROUPED", way, 1);
          check_all_kinds(t, {o, k, m, way == std::string_view("loop")});
        }
  unsetenv("ADAGATE_CUDA_GROUPED");
}
