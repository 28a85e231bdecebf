#include "bench/moe_bench.h"

#include <array>
#include <cmath>
#include <fmt/format.h>

#include "bench/timing.h"
#include "core/base/phase_timer.h"
#include "core/base/rng.h"
#include "core/device/device_phases.h"
#include "core/nn/parameter_store.h"
#include "moe/moe_layer.h"
#include "moe/routing_step.h"

namespace adagate {
namespace {

// Gate logits are log(p) + noise; noise of this deviation makes the arg max fall on expert e about
// as often as p_e, as Gumbel noise would exactly.
constexpr double kNoise = 1.28;

// Column 0 of the input is 1: its gate weights are the experts' popularity.
Tensor input_rows(const BenchOptions& o, DType type, uint64_t salt) {
  Tensor x = Tensor::empty({o.tokens, o.width}, DType::f32);
  Rng rng(5, RngStream::test, salt);
  auto* values = x.data<float>();
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < x.numel(); ++i) {
    values[i] = i % o.width == 0 ? 1.0f : rng.normal(static_cast<uint64_t>(i));
  }
  return x.to(o.device).to(type);
}

// A layer with its parameters, run again and again.
class LayerBench {
 public:
  LayerBench(FeedForwardLayer& layer, const BenchOptions& o, DType type, uint64_t salt,
             std::shared_ptr<Communicator> world, RoutingStep* step)
      : layer_(layer),
        store_(layer, {.master = DType::f32, .compute = type, .device = o.device}),
        world_(std::move(world)),
        step_(step),
        x_(input_rows(o, type, salt)),
        dy_(input_rows(o, type, salt + 1)) {
    store_.initialize(1);
  }
  ParameterStore& store() { return store_; }

  void run() {
    store_.clear_gradients();
    Tensor x = x_.detach();
    x.set_slot(std::make_shared<GradSlot>());
    StepContext context{.training = true, .routing = step_};
    TokenRows rows = padded_rows(1, x.rows());
    if (step_) step_->begin(1);
    world_->barrier();
    synchronize(x.device());
    PhaseTimer::current().start();
    double start = bench_now();
    Tape tape;
    Tensor y;
    {
      Recording on(tape);
      y = layer_.forward(x, context, rows);
    }
    if (step_) step_->end_forward(*world_);
    tape.backward(y, dy_);
    synchronize(x.device());
    seconds_.push_back(bench_now() - start);
    phases_.push_back(PhaseTimer::current().take());
  }

  BenchTime time() const { return bench_time_of(seconds_); }
  double phase(Phase p) const {
    std::vector<double> runs;
    for (auto& phases : phases_) runs.push_back(phases[static_cast<size_t>(p)]);
    return bench_time_of(std::move(runs)).median;
  }

 private:
  FeedForwardLayer& layer_;
  ParameterStore store_;
  std::shared_ptr<Communicator> world_;
  RoutingStep* step_;
  Tensor x_, dy_;
  std::vector<double> seconds_;
  std::vector<std::array<double, kPhaseCount>> phases_;
};

struct MoeCase {
  int64_t experts;
  bool skewed;
  double single;  // share of tokens with one expert
};

// An MoE layer under the case's routing.
struct MoeSubject {
  MoeCase what;
  MoeLayer layer;
  RoutingStep step;
  LayerBench bench;

  MoeSubject(const MoeCase& c, const BenchOptions& o, DType type, const Mesh& mesh)
      : what(c),
        layer(config_of(c, o), mesh),
        step(1, c.experts, config_of(c, o).moe.resolved_balance()),
        bench(layer, o, type, 100 + 2 * static_cast<uint64_t>(mesh.world->rank()), mesh.world,
              &step) {
    set_popularity();
  }

  static MoeLayerConfig config_of(const MoeCase& c, const BenchOptions& o) {
    MoeLayerConfig config{.width = o.width, .hidden = o.hidden};
    config.initial_stddev = kNoise / std::sqrt(static_cast<double>(o.width));
    config.moe.experts = c.experts;
    config.moe.gate.policy = "random_one_or_two";
    config.moe.gate.two_expert_share = 1 - c.single;
    return config;
  }

  // Zipf: the r-th most popular expert draws tokens as 1 / r.
  void set_popularity() {
    Tensor weight = bench.store().find("gate.weight")->master();  // [width, experts]
    Tensor gate = weight.to(Device{});
    for (int64_t e = 0; e < what.experts; ++e) {
      double log_share = what.skewed ? -std::log(static_cast<double>(e + 1)) : 0.0;
      gate.data<float>()[e] = static_cast<float>(log_share);
    }
    weight.copy_from(gate);
    bench.store().refresh_compute();
  }
};

std::vector<MoeCase> cases(int ranks) {
  std::vector<MoeCase> all;
  for (int64_t experts : {8, 16, 64})
    for (bool skewed : {false, true})
      if (experts % ranks == 0) all.push_back({experts, skewed, 0.0});
  if (8 % ranks == 0)
    for (double single : {0.2, 0.5, 0.8, 1.0}) all.push_back({8, false, single});
  return all;
}

void add_lines(BenchTable& table, const BenchOptions& o, DType type,
               const std::shared_ptr<Communicator>& world) {
  Mesh mesh = make_mesh(world, world->size());
  FeedForward dense({.width = o.width, .hidden = o.hidden});
  LayerBench dense_bench(dense, o, type, 100 + 2 * static_cast<uint64_t>(world->rank()), world,
                         nullptr);
  std::vector<std::unique_ptr<MoeSubject>> subjects;
  for (const MoeCase& c : cases(world->size())) {
    subjects.push_back(std::make_unique<MoeSubject>(c, o, type, mesh));
  }
  // In turns, so that a slow moment of the machine strikes all alike.
  for (int64_t round = 0; round < o.rounds; ++round) {
    dense_bench.run();
    for (auto& subject : subjects) subject->bench.run();
  }
  double both = 0;  // the layer whose tokens all take two of 8 experts
  for (auto& subject : subjects) {
    const MoeCase& c = subject->what;
    subject->step.end(*world);
    LayerRouting routing = subject->step.layer(0);
    double tokens = static_cast<double>(o.tokens * world->size());
    double active = routing.assignments() / tokens;
    double seconds = subject->bench.time().median;
    if (c.experts == 8 && !c.skewed && c.single == 0) both = seconds;
    double saved = 1 - active / 2;
    BenchTable::Cell follows;
    if (saved > 0 && both > 0) follows = 100 * (1 - seconds / both) / saved;
    auto ms = [&](Phase p) { return 1e3 * subject->bench.phase(p); };
    double flops = 3 * routing.flops / world->size();
    table.add({static_cast<double>(c.experts), c.skewed ? "Zipf" : "balanced",
               std::string(name_of(type)), 100 * c.single, seconds * 1e3, ms(Phase::gate),
               ms(Phase::dispatch), ms(Phase::experts), ms(Phase::combine), flops / seconds / 1e9,
               active * dense_bench.time().median / seconds, follows});
  }
}

}  // namespace

BenchTable bench_moe(const BenchOptions& options, const std::shared_ptr<Communicator>& world) {
  BenchTable table(
      "moe",
      fmt::format("MoE layer, forward and backward: {} tokens on each of {} rank(s), width {}, "
                  "hidden {}; 'vs dense': rate over that of a dense layer of equal active FLOPs; "
                  "'saved': time saved over FLOPs saved by single-expert tokens",
                  options.tokens, world->size(), options.width, options.hidden),
      {{"experts", "experts", 0},
       {"routing", "routing"},
       {"type", "type"},
       {"single_percent", "single %", 0},
       {"ms", "ms", 2},
       {"gate_ms", "gate", 2},
       {"dispatch_ms", "dispatch", 2},
       {"experts_ms", "products", 2},
       {"combine_ms", "combine", 2},
       {"gflops", "GFLOP/s", 0},
       {"vs_dense", "vs dense", 2},
       {"saved_percent", "saved %", 0}});
  PhaseTimer::current().use(device_phase_clock(options.device));
  for (DType type : options.types) add_lines(table, options, type, world);
  PhaseTimer::current().use(nullptr);
  return table;
}

}  // namespace adagate
