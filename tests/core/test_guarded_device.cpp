// Ops on a device whose memory the host can't touch and whose kernels run later: what passes here
// keeps to the rules that a GPU needs. Results are the CPU's bit for bit.
#include <cstring>

#include "core/device/copy.h"
#include "core/ops/all_kernels.h"
#include "core/tensor/accumulate.h"
#include "core/tensor/read_together.h"
#include "tests/support/guarded_device.h"
#include "tests/support/in_child.h"
#include "tests/support/op_case_checks.h"
#include "tests/support/op_cases.h"

using namespace adagate;
using namespace adagate::test;
using Catch::Matchers::Contains;

namespace {

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

// Both of the CPU.
void check_same(const std::vector<Tensor>& got, const std::vector<Tensor>& expected,
                const char* what) {
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    INFO(what << " " << i);
    REQUIRE(static_cast<bool>(got[i]) == static_cast<bool>(expected[i]));
    if (got[i]) CHECK(same_bits(got[i], expected[i]));
  }
}

void check_case_on_guarded_device(const OpCase& op) {
  for_each_size(op, [](const OpCase& op, const std::vector<OpInput>& inputs) {
    for (DType type : {DType::f64, DType::f32, DType::bf16}) {
      for (double prefill : {0.0, 3.0}) {
        INFO(name_of(type) << ", gradients of " << prefill << " before");
        Evaluation expected = evaluate(inputs, op.function, type, prefill);
        Evaluation got = evaluate(inputs, op.function, type, prefill, guarded_device());
        check_same(got.outputs, expected.outputs, "output");
        check_same(got.gradients, expected.gradients, "gradient");
      }
    }
  });
}

struct UnheardArgs {
  static constexpr std::string_view kKernel = "unheard";
  void* x;
};

struct OtherFillArgs {
  static constexpr std::string_view kKernel = "fill";
  char x[3];
};

std::vector<Tensor> choices_on(Device device) {
  Tensor x = random_normal({40, 24}, 1).to(DType::f32).to(device);
  Tensor w = random_normal({24, 6}, 2, 0.5).to(DType::f32).to(device);
  GateScores scores = gate_scores(x, w);
  std::vector<Tensor> all{scores.probabilities, scores.log_sum_exp, scores.entropy};
  for (auto kind : {SelectionRule::Kind::fixed, SelectionRule::Kind::gap}) {
    Selection s = select_experts(scores, {.kind = kind, .k_max = 2, .threshold = 0.2}, {}, {});
    s.read_counts();
    for (const Tensor& t : {s.row_start, s.expert, s.counts, routing_sums(scores, s, {})})
      all.push_back(t);
    Tensor both = Tensor::empty({2, routing_sums_size(6)}, DType::f64, device);
    for (int64_t l : {0, 1}) both.slice(l, l + 1).copy_from(routing_sums(scores, s, {}));
    for (const BalanceLoss& loss : kBalanceLosses)
      all.push_back(routing_loss_gradients(both, 6, loss, 0.1, 0.01));
  }
  return all;
}

std::vector<Tensor> arrivals_on(Device device) {
  ArrivalOrder order = arrival_order(std::vector<int64_t>{2, 0, 1, 3}, 2, device);
  return std::vector{order.offsets.device, order.to_sorted, order.to_arrived};
}

}  // namespace

TEST_CASE("Every op on a guarded device gives the CPU's bits, and every kernel runs there") {
  for (const OpCase& op : op_cases()) check_case_on_guarded_device(op);

  // Kernels that no differentiable op launches.
  auto on_both = [](auto&& f) {
    std::vector<Tensor> expected = f(Device{}), got = f(guarded_device());
    for (Tensor& t : got) t = t.to(Device{});
    check_same(got, expected, "result");
  };
  on_both([](Device device) {
    Tensor value = random_normal({100}, 1).to(DType::f32).to(device),
           m = Tensor::zeros({100}, DType::f32, device),
           v = Tensor::full({100}, DType::f32, 0.5, device),
           compute = Tensor::empty({100}, DType::bf16, device),
           gradient = random_normal({100}, 2).to(DType::f32).to(device);
    launch_on(device, AdamWArgs{.value = value.raw(),
                                .gradient = gradient.raw(),
                                .m = m.raw(),
                                .v = v.raw(),
                                .compute = compute.raw(),
                                .n = 100,
                                .factors = {.gradient = 1,
                                            .beta1 = 0.9,
                                            .beta2 = 0.95,
                                            .new1 = 0.1,
                                            .new2 = 0.05,
                                            .rate = 1e-3,
                                            .root = 2,
                                            .epsilon = 1e-8,
                                            .shrink = 0.99},
                                .dtype = DType::f32});
    Tensor squares = Tensor::empty({1}, DType::f64, device);
    sum_of_squares(value, squares);
    Tensor read = Tensor::from(std::vector{sum_of_squares(value)}, {1}, DType::f64, device);
    return std::vector{value, m, v, compute, squares, read};
  });
  on_both([](Device device) {
    constexpr int64_t kRows = 3;
    AttentionShape shape{.batch = 2,
                         .sequence = kRows,
                         .heads = 4,
                         .kv_heads = 2,
                         .head_dim = 8,
                         .rotary_base = 10000};
    auto integers = [&](std::vector<int32_t> values) {
      return Tensor::from(std::span<const int32_t>(values), {2}, device);
    };
    Tensor qkv = random_normal({2 * kRows, 64}, 1).to(DType::f32).to(device);
    KvCache cache{.sequences = 2};
    std::vector<Tensor> all{next_positions(cache, kRows, device)};
    all.push_back(attention_step(qkv, shape, cache, integers({3, 1})));
    cache.reorder(integers({1, 0}));
    for (int64_t length = cache.length; length < 70; length = cache.length)
      all.push_back(attention_step(qkv, shape, cache));
    all.push_back(next_positions(cache, kRows, device));
    all.push_back(attention_to_cache({qkv}, shape, cache, integers({0, 3})));
    return all;
  });
  on_both(choices_on);
  on_both(arrivals_on);
  auto launches = guarded_launches();
  AllKernels::for_each([&]<class Args>() {
    INFO(Args::kKernel);
    CHECK(launches[std::string(Args::kKernel)] > 0);
  });
}

TEST_CASE("Tensors move between the host and a guarded device") {
  const std::vector<double> values{1.5, -2, 3};
  Tensor x = Tensor::from(values, {3}, DType::f32, guarded_device());
  CHECK(x.device() == guarded_device());
  CHECK(x.to_doubles() == values);
  CHECK(x.to(guarded_device(1)).to_doubles() == values);
  CHECK(x.slice(1, 3).clone().to_doubles() == std::vector<double>{-2, 3});
  CHECK(x.to(DType::bf16).to(Device{}).to_doubles() == values);
  CHECK_THROWS_WITH(x.to_host<double>(), "tensor is f32, f64 expected");
  Tensor cpu = Tensor::zeros({3}, DType::f64);
  cpu.copy_from(x);
  CHECK(cpu.to_doubles() == values);
  x.copy_from(Tensor::full({3}, DType::i32, 7));
  CHECK(x.to_doubles() == std::vector<double>{7, 7, 7});
  Tensor sum = Tensor::full({3}, DType::f64, 1, guarded_device());
  accumulate_into(sum, x);
  CHECK(sum.to_doubles() == std::vector<double>{8, 8, 8});
  // Fresh memory is NaN, also where it was something else's before.
  x = {};
  for (double v : Tensor::empty({3}, DType::f32, guarded_device()).to_doubles())
    CHECK(std::isnan(v));
}

TEST_CASE("What the host reads and writes of tensors is counted") {
  for (Device device : {Device{}, guarded_device()}) {
    TransferStats before = transfer_stats();
    Tensor x = Tensor::from(std::vector<float>{1, 2}, {2}, DType::f32, device);
    x.clone().copy_from(x);
    x.to_floats();
    TransferStats after = transfer_stats();
    CHECK(after.writes - before.writes == 1);
    CHECK(after.write_bytes - before.write_bytes == 8);
    CHECK(after.reads - before.reads == 1);
    CHECK(after.read_bytes - before.read_bytes == 8);
  }
}

TEST_CASE("Tensors are read together with one copy") {
  for (Device device : {Device{}, guarded_device()}) {
    std::vector<Tensor> parts;
    for (double first : {1.0, 5.0, 8.0})
      parts.push_back(Tensor::from(std::vector{first, first + 1}, {1, 2}, DType::f64, device));
    parts.push_back(Tensor::empty({0}, DType::f64, device));
    TransferStats before = transfer_stats();
    auto values = read_together(parts);
    CHECK(transfer_stats().reads - before.reads == 1);
    CHECK(values == std::vector<std::vector<double>>{{1, 2}, {5, 6}, {8, 9}, {}});
    CHECK(read_together(std::span(parts).first(1)) == std::vector<std::vector<double>>{{1, 2}});
    CHECK(read_together({}).empty());
    CHECK(transfer_stats().reads - before.reads == 2);
    parts.push_back(Tensor::zeros({1}, DType::f32, device));
    CHECK_THROWS_WITH(read_together(parts), Contains("a tensor of f32, f64 expected"));
  }
}

TEST_CASE("A host that touches a guarded device's memory is ended, with the kernel's name") {
  Tensor x = Tensor::full({4}, DType::f32, 1.0, guarded_device());
  auto ended = in_child([&] { [[maybe_unused]] volatile float first = x.data<float>()[0]; });
  CHECK(ended.status == kGuardedExit);
  CHECK_THAT(ended.output, Contains("launched last: fill"));
  synchronize(guarded_device());
  ended = in_child([&] { x.data<float>()[0] = 2; });
  CHECK(ended.status == kGuardedExit);
}

TEST_CASE("Arguments that point to the host are refused; arrays declared so are copied") {
  Tensor x = Tensor::full({4}, DType::f32, 1.0, guarded_device());
  double on_stack = 0;
  auto on_heap = std::make_unique<double>();
  for (double* result : {&on_stack, on_heap.get()})
    CHECK_THROWS_WITH(
        launch_on(guarded_device(),
                  SumOfSquaresArgs{.x = x.raw(), .result = result, .n = 4, .dtype = DType::f32}),
        Contains("kernel sum_of_squares: its arguments at byte 8 point to memory of the host"));

  Tensor rows = Tensor::full({3, 2}, DType::f32, 1.0, guarded_device());
  Tensor weights = Tensor::full({2, 2, 2}, DType::f32, 0.5, guarded_device());
  Tensor y;
  {
    GroupOffsets gone({0, 1, 3}, guarded_device());
    y = grouped_linear(rows, weights, gone);
    std::fill(gone.host.begin(), gone.host.end(), -1);
  }
  CHECK(y.to_floats() == std::vector<float>(6, 1.0f));
}

TEST_CASE("A kernel that a device's backend lacks is named") {
  CHECK_THROWS_WITH(launch_elsewhere(guarded_device(), UnheardArgs{}),
                    Contains("no kernel unheard with arguments of 8 bytes"));
  CHECK_THROWS_WITH(launch_elsewhere(guarded_device(), OtherFillArgs{}),
                    Contains("no kernel fill with arguments of 3 bytes"));
  CHECK_THROWS_WITH(Tensor::zeros({1}, DType::f32, {DeviceKind::guarded, kGuardedDevices}),
                    "guarded device 8 of 8");
}
