// Time of one MoE layer, forward and backward, by share of tokens with one expert, phase by phase,
// beside the dense feed-forward of the same active FLOPs.
//   bench_moe [tokens width hidden experts [f32|bf16 [rounds]]]
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "core/base/phase_timer.h"
#include "core/nn/parameter_store.h"
#include "moe/moe_layer.h"
#include "moe/routing_step.h"

namespace adagate {
namespace {

struct Sizes {
  int64_t tokens = 2048, width = 384, hidden = 1536, experts = 8;
  DType type = DType::f32;
  int rounds = 15;
};

Tensor random_rows(int64_t rows, int64_t cols, DType type, uint64_t salt) {
  Tensor x = Tensor::empty({rows, cols}, DType::f32);
  Rng rng(5, RngStream::test, salt);
  for (int64_t i = 0; i < x.numel(); ++i) x.data<float>()[i] = rng.normal(static_cast<uint64_t>(i));
  return x.to(type);
}

struct Timing {
  double seconds = 1e30;
  std::array<double, kPhaseCount> phases{};
};

// A layer with its parameters, run again and again; keeps the fastest run.
class Bench {
 public:
  Bench(FeedForwardLayer& layer, const Sizes& sizes, RoutingStep* step)
      : layer_(layer),
        store_(layer, {.master = DType::f32, .compute = sizes.type, .allocate_grad = {}}),
        step_(step),
        x_(random_rows(sizes.tokens, sizes.width, sizes.type, 1)),
        dy_(random_rows(sizes.tokens, sizes.width, sizes.type, 2)) {
    store_.initialize(1);
  }

  void run() {
    store_.clear_gradients();
    Tensor x = x_.detach();
    x.set_slot(std::make_shared<GradSlot>());
    ForwardContext context;
    context.training = true;
    context.routing = step_;
    if (step_) step_->begin(1);
    PhaseTimer::current().take();
    auto start = PhaseTimer::Clock::now();
    Tape tape;
    Tensor y;
    {
      Recording on(tape);
      y = layer_.forward(x, context);
    }
    if (step_) step_->end_forward(*self_);
    tape.backward(y, dy_);
    double seconds = std::chrono::duration<double>(PhaseTimer::Clock::now() - start).count();
    auto phases = PhaseTimer::current().take();
    if (seconds < best_.seconds) best_ = {seconds, phases};
  }
  const Timing& best() const { return best_; }

 private:
  FeedForwardLayer& layer_;
  ParameterStore store_;
  RoutingStep* step_;
  Tensor x_, dy_;
  Timing best_;
  std::shared_ptr<Communicator> self_ = make_self_communicator();
};

MoeLayerConfig config_of(const Sizes& sizes, double two_expert_share) {
  MoeLayerConfig config{.width = sizes.width, .hidden = sizes.hidden};
  config.moe.experts = sizes.experts;
  config.moe.gate.policy = "random_one_or_two";
  config.moe.gate.two_expert_share = two_expert_share;
  return config;
}

void bench(const Sizes& sizes) {
  constexpr double kSingle[] = {0.0, 0.2, 0.5, 0.8, 1.0};
  std::vector<std::unique_ptr<MoeLayer>> layers;
  std::vector<std::unique_ptr<RoutingStep>> steps;
  std::vector<std::unique_ptr<Bench>> benches;
  for (double single : kSingle) {
    MoeLayerConfig config = config_of(sizes, 1 - single);
    layers.push_back(std::make_unique<MoeLayer>(config, make_self_mesh()));
    steps.push_back(std::make_unique<RoutingStep>(1, sizes.experts, config.moe.balance));
    benches.push_back(std::make_unique<Bench>(*layers.back(), sizes, steps.back().get()));
  }
  FeedForward dense({.width = sizes.width, .hidden = sizes.hidden});
  Bench dense_bench(dense, sizes, nullptr);
  for (int round = 0; round < sizes.rounds; ++round) {
    for (auto& bench : benches) bench->run();
    dense_bench.run();
  }
  std::printf("%ld tokens, width %ld, hidden %ld, %ld experts, %s\n",
              static_cast<long>(sizes.tokens), static_cast<long>(sizes.width),
              static_cast<long>(sizes.hidden), static_cast<long>(sizes.experts),
              std::string(name_of(sizes.type)).c_str());
  std::printf("dense feed-forward: %.2f ms\n", 1e3 * dense_bench.best().seconds);
  std::printf("%8s %8s %8s %8s %9s %8s %8s %10s %10s\n", "single", "ms", "gate", "dispatch",
              "experts", "combine", "GFLOP/s", "vs dense", "saved/FLOP");
  double both = benches[0]->best().seconds;
  for (size_t i = 0; i < benches.size(); ++i) {
    const Timing& t = benches[i]->best();
    auto ms = [&](Phase p) { return 1e3 * t.phases[static_cast<size_t>(p)]; };
    double assignments = steps[i]->layer(0).assignments();
    double flops = 3 * steps[i]->layer(0).flops;
    double active = assignments / static_cast<double>(sizes.tokens);
    double saved = 1 - active / 2;
    std::printf("%7.0f%% %8.2f %8.2f %8.2f %9.2f %8.2f %8.0f %10.2f %10.2f\n", 100 * kSingle[i],
                1e3 * t.seconds, ms(Phase::gate), ms(Phase::dispatch), ms(Phase::experts),
                ms(Phase::combine), flops / t.seconds / 1e9,
                active * dense_bench.best().seconds / t.seconds,
                saved > 0 ? (1 - t.seconds / both) / saved : 0.0);
  }
}

}  // namespace
}  // namespace adagate

int main(int argc, char** argv) {
  adagate::Sizes sizes;
  int64_t* numbers[] = {&sizes.tokens, &sizes.width, &sizes.hidden, &sizes.experts};
  for (int i = 1; i < std::min(argc, 5); ++i) *numbers[i - 1] = std::stol(argv[i]);
  if (argc > 5)
    sizes.type = std::string(argv[5]) == "bf16" ? adagate::DType::bf16 : adagate::DType::f32;
  if (argc > 6) sizes.rounds = std::stoi(argv[6]);
  adagate::bench(sizes);
}
