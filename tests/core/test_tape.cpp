// The tape itself: gradients that meet in one tensor, and what runs while it is replayed.
#include <vector>

#include "core/autograd/phase_span.h"
#include "core/autograd/tape.h"
#include "core/base/rng.h"
#include "core/ops/elementwise.h"
#include "tests/support/catch.h"

using namespace adagate;

namespace {

// A value computed from values before it.
struct Node {
  enum class Kind { add, mul, scale } kind;
  size_t a, b;
};
constexpr size_t kLeaves = 3, kNodes = 12;
constexpr double kFactor = -1.5;

// Small whole numbers, so that every sum and product of the graphs is exact.
std::vector<double> leaf(size_t k) {
  const auto i = static_cast<double>(k);
  return {1.0 + i, -2.0 + i, 0.5 * i - 1.0, 2.0};
}

// Operands are mostly late values; so tensors have several users.
std::vector<Node> random_graph(uint64_t seed) {
  Rng rng(seed, RngStream::test);
  std::vector<Node> nodes;
  for (size_t i = 0; i < kNodes; ++i) {
    const auto r = rng.at(i);
    const size_t before = kLeaves + i, window = std::min<size_t>(before, 4);
    auto pick = [&](uint32_t bits) {
      return bits % 3 == 0 ? bits / 3 % before : before - 1 - bits / 3 % window;
    };
    // Few products: the numbers must stay small.
    const Node::Kind kind = r[0] % 8 < 5   ? Node::Kind::add
                            : r[0] % 8 < 7 ? Node::Kind::scale
                                           : Node::Kind::mul;
    nodes.push_back({kind, pick(r[1]), pick(r[2])});
  }
  return nodes;
}

// d (sum of the last two values) / d (leaf), element by element: by derivatives carried forward.
std::vector<double> forward_mode(const std::vector<Node>& nodes, size_t of) {
  std::vector<std::vector<double>> value, derivative;
  for (size_t k = 0; k < kLeaves; ++k) {
    value.push_back(leaf(k));
    derivative.emplace_back(value.back().size(), k == of ? 1.0 : 0.0);
  }
  for (const Node& n : nodes) {
    std::vector<double> v, d;
    for (size_t i = 0; i < value[0].size(); ++i) {
      const double x = value[n.a][i], dx = derivative[n.a][i];
      const double y = value[n.b][i], dy = derivative[n.b][i];
      switch (n.kind) {
        case Node::Kind::add:
          v.push_back(x + y), d.push_back(dx + dy);
          break;
        case Node::Kind::mul:
          v.push_back(x * y), d.push_back(dx * y + x * dy);
          break;
        case Node::Kind::scale:
          v.push_back(kFactor * x), d.push_back(kFactor * dx);
      }
    }
    value.push_back(v);
    derivative.push_back(d);
  }
  std::vector<double> sum = derivative.back();
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += derivative[derivative.size() - 2][i];
  return sum;
}

// The same for all leaves by the tape.
std::vector<std::vector<double>> by_tape(const std::vector<Node>& nodes) {
  std::vector<Tensor> values;
  for (size_t k = 0; k < kLeaves; ++k) {
    const auto numbers = leaf(k);
    values.push_back(Tensor::from(std::span<const double>(numbers), {4}));
    values.back().set_slot(std::make_shared<GradSlot>());
  }
  Tape tape;
  Recording on(tape);
  for (const Node& n : nodes) {
    const Tensor &x = values[n.a], &y = values[n.b];
    values.push_back(n.kind == Node::Kind::add   ? add(x, y)
                     : n.kind == Node::Kind::mul ? mul(x, y)
                                                 : scale(x, kFactor));
  }
  tape.backward(add(values[values.size() - 1], values[values.size() - 2]));
  std::vector<std::vector<double>> gradients;
  for (size_t k = 0; k < kLeaves; ++k) {
    const GradSlot& slot = *values[k].slot();
    gradients.push_back(slot.filled() ? slot.value().to_doubles() : std::vector<double>(4, 0.0));
  }
  return gradients;
}

Phase phase_now() {
  Phase phase = PhaseTimer::current().enter(Phase::other);
  PhaseTimer::current().enter(phase);
  return phase;
}

}  // namespace

TEST_CASE("a gradient handed to two tensors stays right when one of them gets more") {
  Tensor a = Tensor::full({2}, DType::f64, 3.0), b = Tensor::full({2}, DType::f64, 5.0);
  a.set_slot(std::make_shared<GradSlot>());
  b.set_slot(std::make_shared<GradSlot>());
  Tape tape;
  Recording on(tape);
  Tensor product = scale(a, 7.0);
  tape.backward(add(add(a, b), product));
  CHECK(a.slot()->value().to_doubles() == std::vector<double>(2, 8.0));
  CHECK(b.slot()->value().to_doubles() == std::vector<double>(2, 1.0));
}

TEST_CASE("gradients through random graphs equal derivatives carried forward") {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    INFO("graph " << seed);
    const auto nodes = random_graph(seed);
    const auto gradients = by_tape(nodes);
    for (size_t k = 0; k < kLeaves; ++k) CHECK(gradients[k] == forward_mode(nodes, k));
  }
}

TEST_CASE("backward of a phase's ops counts for the phase") {
  std::vector<Phase> seen;
  auto look = [&] { on_backward([&] { seen.push_back(phase_now()); }); };
  Tape tape;
  Tensor x = Tensor::full({1}, DType::f64, 3.0);
  x.set_slot(std::make_shared<GradSlot>());
  PhaseScope outer(Phase::forward);
  {
    Recording on(tape);
    look();
    {
      PhaseSpan gate(Phase::gate);
      look();
      CHECK(phase_now() == Phase::gate);
      {
        PhaseSpan dispatch(Phase::dispatch);
        look();
      }
      look();
    }
    CHECK(phase_now() == Phase::forward);
    look();
    x = scale(x, 2.0);
  }
  PhaseScope backward(Phase::backward);
  tape.backward(x);
  CHECK(seen ==
        std::vector{Phase::backward, Phase::gate, Phase::dispatch, Phase::gate, Phase::backward});
  CHECK(phase_now() == Phase::backward);
}
