// Every op on the CUDA backend gives what the CPU gives, to the op's tolerance, in whatever order
// the threads of a block and the streams of a process run; and twice the same bits.
#include <cstdlib>
#include <cstring>

#include "tests/cuda/gpu.h"
#include "tests/support/op_case_checks.h"
#include "tests/support/op_cases.h"

using namespace adagate;
using namespace adagate::test;

namespace {

// Gradients of a softmax over one key are 0 on the CPU and some rounding on a GPU: below this,
// errors count as they are, not by what they are an error of.
constexpr double kSmall = 0.1;

// Both sides round: an f64 op may differ by a few units in the last place, others by what the CPU
// itself may be off from f64.
double tolerance_of(const OpCase& op, DType type) {
  if (type == DType::f64) return 1e-12;
  return type == DType::f32 ? 2 * op.tolerance.f32 : 2 * op.tolerance.bf16;
}

double largest_of(const Tensor& x) {
  double largest = 0;
  for (double v : x.to_doubles()) largest = std::max(largest, std::abs(v));
  return largest;
}

void check_close(const std::vector<Tensor>& got, const std::vector<Tensor>& expected,
                 double tolerance, const char* what) {
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    INFO(what << " " << i);
    REQUIRE(static_cast<bool>(got[i]) == static_cast<bool>(expected[i]));
    if (!got[i]) continue;
    REQUIRE(got[i].shape() == expected[i].shape());
    double largest = std::max(largest_of(expected[i]), 1e-30);
    CHECK(relative_error(got[i], expected[i]) * largest <= tolerance * std::max(largest, kSmall));
  }
}

void check_same_bits(const std::vector<Tensor>& a, const std::vector<Tensor>& b, const char* what) {
  for (size_t i = 0; i < a.size(); ++i) {
    INFO(what << " " << i << " of two runs");
    if (a[i]) CHECK(std::memcmp(a[i].raw(), b[i].raw(), a[i].bytes()) == 0);
  }
}

void check_on_gpu(const OpCase& op, const std::vector<OpInput>& inputs, DType type,
                  double prefill) {
  INFO(op.name << ", " << name_of(type) << ", gradients of " << prefill << " before");
  Evaluation expected = evaluate(inputs, op.function, type, prefill);
  Evaluation first;
  for (uint64_t order : {0, 1, 2}) {
    INFO("order of threads " << order);
    order_threads(order);
    Evaluation got = evaluate(inputs, op.function, type, prefill, gpu());
    if (order > 0) {
      check_same_bits(got.outputs, first.outputs, "output");
      check_same_bits(got.gradients, first.gradients, "gradient");
      continue;
    }
    check_close(got.outputs, expected.outputs, tolerance_of(op, type), "output");
    check_close(got.gradients, expected.gradients, tolerance_of(op, type), "gradient");
    first = std::move(got);
  }
  order_threads(0);
}

// Long enough for several blocks. The emulator takes its time for them: f32 alone, but with
// ADAGATE_TEST_FULL=1.
constexpr int64_t kLong = 1000;

bool is_tried(int64_t n, DType type, double prefill) {
  const char* full = std::getenv("ADAGATE_TEST_FULL");
  return n != kLong || (full && *full == '1') || (type == DType::f32 && prefill != 0);
}

}  // namespace

TEST_CASE("CUDA: every op gives what the CPU gives, the same bits in every order of threads",
          "[long]") {
  for (const OpCase& op : op_cases())
    for (int64_t n : kOpCaseSizes) {
      INFO("size " << n);
      const std::vector<OpInput> inputs = op.inputs(n);
      for (DType type : {DType::f64, DType::f32, DType::bf16})
        for (double prefill : {0.0, 3.0}) {
          // Sizes around a warp's, with gradients to add to, where the host is watched, too.
          guard_memory(n == 33 && prefill != 0);
          if (is_tried(n, type, prefill)) check_on_gpu(op, inputs, type, prefill);
        }
    }
  guard_memory(true);
}
