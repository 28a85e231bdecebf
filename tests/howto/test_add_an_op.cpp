// The op of docs/howto/add_an_op.md.
#include "core/ops/relu_squared.h"
#include "tests/support/op_case_checks.h"

using namespace adagate;
using namespace adagate::test;

namespace {

std::vector<OpCase> cases_of_the_page() {
  std::vector<OpCase> cases;
  // [case]
  cases.push_back(
      {.name = "relu_squared",
       .inputs =
           [](int64_t n) {
             return std::vector<OpInput>{{random_normal({n, 7}, 1)}};
           },
       .function = [](std::span<const Tensor> in) { return std::vector{relu_squared(in[0])}; }});
  // [end]
  return cases;
}

}  // namespace

TEST_CASE("howto: the op passes what every op must") {
  for (const OpCase& op : cases_of_the_page()) {
    check_case_gradients(op);
    check_case_types(op);
    check_case_accumulation(op);
  }
}

TEST_CASE("howto: the op's values and its error") {
  Tensor x = Tensor::from(std::vector<float>{-2, 0, 3}, {3});
  CHECK(relu_squared(x).to_floats() == std::vector<float>{0, 0, 9});
  Tensor ids = Tensor::from(std::vector<int32_t>{1}, {1});
  CHECK_THROWS_WITH(relu_squared(ids), "relu_squared: x is i32, a floating type expected");
}
