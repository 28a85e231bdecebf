// Buffers with room for more rows than there are assignments, as devices have them whose host does
// not read how many there are: what stands past the last assignment is neither read nor written,
// and the rest is to the bit what buffers of the exact size hold.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/ops/bias_activation.h"
#include "core/ops/grouped_linear.h"
#include "core/ops/permute.h"
#include "tests/support/catch.h"
#include "tests/support/guarded_device.h"
#include "tests/support/op_cases_moe.h"

using namespace adagate;
using namespace adagate::test;

namespace {

constexpr int64_t kTokens = 37, kWidth = 12, kHidden = 10, kMost = 3;
constexpr double kBefore = 3.0;  // of gradients that are added to

// The same choice as a device makes it: with room for kMost experts of each token.
Selection with_room(const Selection& exact, Device device) {
  Selection s{.row_start = exact.row_start.to(device),
              .expert = Tensor::empty({kTokens * kMost}, DType::i32, device),
              .counts = exact.counts.to(device),
              .host_counts = {}};
  s.expert.slice(0, exact.expert.numel()).copy_from(exact.expert);
  return s;
}

// `rows` in front of so much room, which nothing has been written to.
Tensor with_room(const Tensor& rows, int64_t room, Device device) {
  if (room == rows.rows()) return rows.to(device);
  Shape shape = rows.shape();
  shape[0] = room;
  Tensor all = Tensor::empty(shape, rows.dtype(), device);
  all.slice(0, rows.dim(0)).copy_from(rows);
  return all;
}

// What is in use, as the host's bytes.
std::vector<double> front(const Tensor& t, int64_t rows) {
  return t.slice(0, rows).to_doubles();
}

bool all_are(const Tensor& t, int64_t from, double expected) {
  std::vector<double> values = t.slice(from, t.dim(0)).to_doubles();
  return std::all_of(values.begin(), values.end(), [&](double v) {
    return std::isnan(expected) ? std::isnan(v) : v == expected;
  });
}

// An op from rows in the order of the experts to such rows.
struct RowOp {
  const char* name;
  int64_t in, out;             // columns
  std::vector<Shape> weights;  // of parameters
  std::function<Tensor(const Tensor& rows, const std::vector<Tensor>& weights,
                       const GroupOffsets& offsets)>
      run;
};

std::vector<RowOp> row_ops() {
  std::vector<RowOp> ops;
  ops.push_back({"grouped_linear",
                 kWidth,
                 kHidden,
                 {{kCaseExperts, kWidth, kHidden}, {kCaseExperts, kHidden}},
                 [](const Tensor& x, const std::vector<Tensor>& w, const GroupOffsets& offsets) {
                   return grouped_linear(x, w[0], offsets, w[1]);
                 }});
  for (Activation a : {Activation::gelu, Activation::swiglu})
    ops.push_back({a == Activation::gelu ? "bias_activation" : "bias_activation, gated",
                   kHidden,
                   a == Activation::gelu ? kHidden : kHidden / 2,
                   {{kCaseExperts, kHidden}},
                   [a](const Tensor& x, const std::vector<Tensor>& w, const GroupOffsets& offsets) {
                     return bias_activation(x, w[0], offsets, a);
                   }});
  return ops;
}

Tensor leaf(Tensor values, double before) {
  values.set_slot(std::make_shared<GradSlot>());
  values.slot()->add(Tensor::full(values.shape(), values.dtype(), before, values.device()));
  return values;
}

struct Ran {
  Tensor y, dx;
  std::vector<Tensor> dw;
};

Ran run(const RowOp& op, const Selection& selection, int64_t used, DType type) {
  Device device = selection.row_start.device();
  ExpertOrder order = sort_by_expert(selection);
  Tensor x =
      leaf(with_room(random_normal({used, op.in}, 1).to(type), order.rows(), device), kBefore);
  std::vector<Tensor> weights;
  for (const Shape& shape : op.weights)
    weights.push_back(leaf(random_normal(shape, 2, 0.5).to(type).to(device), kBefore));
  Tape tape;
  Ran ran;
  {
    Recording on(tape);
    ran.y = op.run(x, weights, order.offsets);
  }
  tape.backward(ran.y, with_room(random_normal({used, op.out}, 3).to(type), order.rows(), device));
  ran.dx = x.slot()->value();
  for (const Tensor& w : weights) ran.dw.push_back(w.slot()->value());
  return ran;
}

}  // namespace

TEST_CASE("room: products and activations of experts keep to the rows in use") {
  Selection exact = random_selection(kTokens, kCaseExperts, kMost);
  const int64_t used = exact.expert.numel();
  REQUIRE(used < kTokens * kMost);
  for (const RowOp& op : row_ops())
    for (DType type : {DType::f64, DType::f32, DType::bf16}) {
      INFO(op.name << " of " << name_of(type));
      Ran expected = run(op, exact, used, type);
      Ran got = run(op, with_room(exact, guarded_device()), used, type);
      REQUIRE(got.y.dim(0) == kTokens * kMost);
      CHECK(front(got.y, used) == expected.y.to_doubles());
      CHECK(all_are(got.y, used, NAN));
      CHECK(front(got.dx, used) == expected.dx.to_doubles());
      CHECK(all_are(got.dx, used, kBefore));
      for (size_t i = 0; i < expected.dw.size(); ++i)
        CHECK(got.dw[i].to_doubles() == expected.dw[i].to_doubles());
    }
}

TEST_CASE("room: rows come and go, and nothing past the last one does") {
  Selection exact = random_selection(kTokens, kCaseExperts, kMost);
  const int64_t used = exact.expert.numel();
  struct Moved {
    Tensor gathered, y, dx, drows, dweight;
  };
  auto move = [&](const Selection& selection) {
    Device device = selection.row_start.device();
    ExpertOrder order = sort_by_expert(selection);
    // Rows that there are: who goes on past the last assignment moves numbers, not NaN.
    for (const Tensor& index : {order.row, order.token}) index.slice(used, order.rows()).fill(0);
    Tensor x = leaf(random_normal({kTokens, kWidth}, 1).to(device), kBefore);
    Tensor rows = leaf(with_room(random_normal({used, kWidth}, 2), order.rows(), device), kBefore);
    Tensor weight = leaf(with_room(random_normal({used}, 3), order.rows(), device), kBefore);
    Tape tape;
    Moved moved;
    {
      Recording on(tape);
      moved.gathered = gather_rows(x, order);
      moved.y = combine_rows(rows, weight, order);
    }
    tape.backward(moved.y, random_normal({kTokens, kWidth}, 4).to(device));
    {
      Recording on(tape);
      moved.gathered = gather_rows(x, order);
    }
    tape.backward(moved.gathered,
                  with_room(random_normal({used, kWidth}, 5), order.rows(), device));
    moved.dx = x.slot()->value();
    moved.drows = rows.slot()->value();
    moved.dweight = weight.slot()->value();
    return moved;
  };
  Moved expected = move(exact), got = move(with_room(exact, guarded_device()));
  CHECK(front(got.gathered, used) == expected.gathered.to_doubles());
  CHECK(all_are(got.gathered, used, NAN));
  CHECK(got.y.to_doubles() == expected.y.to_doubles());
  CHECK(got.dx.to_doubles() == expected.dx.to_doubles());
  CHECK(front(got.drows, used) == expected.drows.to_doubles());
  CHECK(all_are(got.drows, used, kBefore));
  CHECK(front(got.dweight, used) == expected.dweight.to_doubles());
  CHECK(all_are(got.dweight, used, kBefore));
}

TEST_CASE("room: the choice and its weights, with the host's counts and without") {
  const int64_t experts = kCaseExperts;
  auto choose = [&](Device device) {
    Tensor x = random_normal({kTokens, kWidth}, 1).to(DType::f32).to(device);
    Tensor w = random_normal({kWidth, experts}, 2, 0.5).to(DType::f32).to(device);
    GateScores scores = gate_scores(x, w);
    Selection s = select_experts(
        scores, {.kind = SelectionRule::Kind::gap, .k_max = kMost, .threshold = 0.1}, {}, {});
    return std::pair(s, routing_weights(x, w, scores, s, true, {}, nullptr));
  };
  auto [exact, exact_weight] = choose({});
  auto [room, weight] = choose(guarded_device());
  const int64_t used = exact.expert.numel();
  REQUIRE(used < kTokens * kMost);
  CHECK(room.expert.numel() == kTokens * kMost);
  CHECK(room.host_counts.empty());
  CHECK(front(room.expert, used) == exact.expert.to_doubles());
  CHECK(all_are(room.expert, used, -1));  // fresh memory
  CHECK(front(weight, used) == exact_weight.to_doubles());
  CHECK(all_are(weight, used, NAN));
  room.read_counts();
  CHECK(room.host_counts == exact.host_counts);
  CHECK(room.expert.to_host<int32_t>() == exact.expert.to_host<int32_t>());
  ExpertOrder order = sort_by_expert(room);
  CHECK(order.rows() == used);
  CHECK(order.offsets.host == sort_by_expert(exact).offsets.host);
}

TEST_CASE("room: offsets that the host knows must fit, others only their buffers") {
  Tensor w = Tensor::zeros({2, 3, 4}, DType::f32);
  GroupOffsets known({0, 1, 4}, {}), unknown(known.device, {}, 6);
  auto rows = [](int64_t n) { return Tensor::zeros({n, 3}, DType::f32); };
  CHECK_NOTHROW(grouped_linear(rows(4), w, known));
  CHECK_THROWS_AS(grouped_linear(rows(6), w, known), Error);
  CHECK_NOTHROW(grouped_linear(rows(6), w, unknown));
  CHECK_THROWS_AS(grouped_linear(rows(4), w, unknown), Error);
  CHECK_THROWS_AS(GroupOffsets(known.device, {0, 1, 4}, 6), Error);
}
