// The layer of docs/howto/add_a_layer.md.
#include "layers/adapter.h"
#include "tests/support/layer_check.h"

using namespace adagate;
using namespace adagate::test;

// [test]
TEST_CASE("adapter: names, gradients, the same seed gives the same output") {
  Adapter adapter({.width = 12, .bottleneck = 5});
  expect_layer_contract(
      adapter, {"norm.gamma", "norm.beta", "down.weight", "down.bias", "up.weight", "up.bias"},
      random_normal({7, 12}, 1), [](Adapter& layer, const Tensor& x) { return layer.forward(x); });
}
// [end]

TEST_CASE("adapter: an impossible bottleneck") {
  CHECK_THROWS_WITH(Adapter({.width = 8, .bottleneck = 8}),
                    "adapter: a bottleneck of 8 in a width of 8; choose 1 to 7");
}
