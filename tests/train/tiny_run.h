// A tiny MoE decoder trained a few steps on made-up samples, on any layout: what the layout,
// determinism and checkpointing tests share.
#pragma once

#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "core/base/rng.h"
#include "core/optim/adamw.h"
#include "data/sampler.h"
#include "models/decoder.h"
#include "parallel/thread_communicator.h"
#include "train/tasks/next_token.h"
#include "train/training_step.h"

namespace adagate::tiny {

struct Layout {
  int ranks = 1, expert_parallel = 1;
  int64_t accumulation = 1;
  bool recompute_blocks = false;
};

// The samples of a step: lengths and contents by sample id, so that any layout sees the same.
struct Scenario {
  std::string name = "padded";
  int64_t batch = 4, sequence = 6, steps = 5, width = 8;
  DType dtype = DType::f64, compute = DType::f64;
  std::string policy = "adaptive";
  std::string balance = "paper";
  std::string scope = "global_batch";
  double threshold = 0.1;
  double z_coefficient = 0.01;
  double dropout = 0.0;
  bool modern = false;       // grouped-query heads, rotary, swiglu ...; gaps and weights of pairs
  double epsilon = 1e-8;     // of AdamW
  bool masked_rows = false;  // samples 1 mod 2 have no valid target at all
  bool all_on_one = false;   // gate weights such that expert 2 takes every token
};

struct Outcome {
  using Numbers = std::map<std::string, std::vector<double>>;
  Numbers parameters;  // global, experts gathered
  Numbers figures;     // what the metrics show, by name; a value per step, or per step and layer
  // How often, over ranks and steps, a rank had no sample, or samples without any valid target.
  int64_t ranks_empty = 0, ranks_masked = 0;
};

inline Sample make_sample(const Scenario& s, int64_t id) {
  Rng rng(11, RngStream::test, 0, static_cast<uint64_t>(id));
  int64_t length = s.name == "padded" ? 1 + (id * 5 + 2) % s.sequence : s.sequence;
  Sample sample;
  for (int64_t t = 0; t < length; ++t) {
    sample.ids.push_back(static_cast<int32_t>(rng.at(static_cast<uint64_t>(t))[0] % 23));
    bool ignored = (s.masked_rows && id % 2 == 1) || rng.at(static_cast<uint64_t>(t))[2] % 7 == 0;
    sample.targets.push_back(
        ignored ? -1 : static_cast<int32_t>(rng.at(static_cast<uint64_t>(t))[1] % 23));
  }
  return sample;
}

class Samples final : public Dataset {
 public:
  Samples(const Scenario& s, int64_t size) : s_(s), size_(size) {}
  int64_t size() const override { return size_; }
  Sample get(int64_t id) const override { return make_sample(s_, id); }

 private:
  Scenario s_;
  int64_t size_;
};

inline ModelConfig model_config(const Scenario& s) {
  ModelConfig m;
  if (s.modern) {
    m.preset = "modern";
    m.apply_preset();
    m.kv_heads = 1;
    m.feed_forward = s.width * 3 / 2;
  }
  m.layers = 2;
  m.width = s.width;
  m.heads = 2;
  m.context = s.sequence;
  m.vocabulary = 23;
  m.initializer_range = 0.3;
  m.dropout = s.dropout;
  m.attention_dropout = s.dropout;
  return m;
}

inline MoeConfig moe_config(const Scenario& s) {
  MoeConfig moe;
  moe.experts = 4;
  moe.gate.policy = s.policy;
  moe.gate.threshold = s.threshold;
  moe.gate.normalize = s.modern ? "pair" : "all";
  moe.gate.combine = s.modern ? "renormalized" : "raw";
  moe.gate.two_expert_share = 0.5;
  moe.gate.k = 3;
  moe.balance.loss = s.balance;
  moe.balance.scope = s.scope;
  moe.balance.coefficient = 0.05;
  moe.balance.z_coefficient = s.z_coefficient;
  return moe;
}

inline void put_all_on_one(ParameterStore& store) {
  for (Parameter* p : store.parameters()) {
    if (p->name().find("gate.weight") == std::string::npos) continue;
    // The norm before the gate gets a constant element that only expert 2 listens to.
    visit_floating(p->master().dtype(), [&](auto type) {
      auto* w = p->master().data<decltype(type)>();
      for (int64_t e = 0; e < 4; ++e) w[e] = static_cast<decltype(type)>(e == 2 ? 50.0 : 0.0);
    });
  }
  for (Parameter* p : store.parameters()) {
    if (p->name().find("feed_forward_norm") == std::string::npos) continue;
    visit_floating(p->master().dtype(), [&](auto type) {
      auto* w = p->master().data<decltype(type)>();
      w[0] = static_cast<decltype(type)>(p->name().find("gamma") != std::string::npos ? 0.0 : 1.0);
    });
  }
}

inline std::vector<double> gathered(const Parameter& p, const Mesh& mesh) {
  if (p.spec().is_whole()) return p.master().to_doubles();
  Tensor local = p.master().to(DType::f64);
  Tensor all = Tensor::empty(p.spec().global_shape(), DType::f64);
  mesh.group(p.spec().group).parts->all_gather(local.raw(), all.raw(), local.numel(), DType::f64);
  return all.to_doubles();
}

// Adds the step's figures, all that metrics.jsonl shows but times and the traffic between ranks.
inline void add_figures(const StepResult& r, const RoutingStep& routing, Outcome& outcome) {
  auto add = [&](const char* name, double value) { outcome.figures[name].push_back(value); };
  add("loss", r.loss);
  add("auxiliary loss", r.auxiliary_loss);
  add("gradient norm", r.grad_norm);
  add("targets", static_cast<double>(r.targets));
  add("tokens", static_cast<double>(r.tokens));
  add("samples", static_cast<double>(r.samples));
  add("visible pairs", static_cast<double>(r.visible_pairs));
  for (int64_t l = 0; l < routing.layers(); ++l) {
    LayerRouting layer = routing.layer(l);
    add("single-expert share", layer.share_with(1));
    add("entropy", layer.mean_entropy());
    add("balance loss", layer.balance_loss);
    add("z-loss", layer.z_loss);
    add("routed tokens", layer.sums.tokens);
    for (double load : layer.sums.assigned) add("load", load);
    for (double tokens : layer.sums.gap) add("gap", tokens);
    add("rows of all ranks", std::accumulate(layer.rank_rows.begin(), layer.rank_rows.end(), 0.0));
  }
}

inline Outcome train_on(const Scenario& s, const Layout& layout,
                        std::shared_ptr<Communicator> world) {
  Mesh mesh = make_mesh(std::move(world), layout.expert_parallel);
  Decoder model(model_config(s), moe_config(s), mesh);
  ParameterStore store(model, {.master = s.dtype, .compute = s.compute});
  store.initialize(5);
  if (s.all_on_one) put_all_on_one(store);
  store.refresh_compute();
  AdamW adamw(store, {.epsilon = s.epsilon, .weight_decay = 0.1});
  TrainingStep step(model, kNextToken, store, adamw, mesh,
                    {.seed = 9, .clip_norm = 0.5, .recompute_blocks = layout.recompute_blocks});
  Samples samples(s, 64);
  Sampler sampler({.seed = 3, .batch = {.size = s.batch}, .accumulation = layout.accumulation},
                  samples.size());
  Outcome outcome;
  DataPosition position;
  for (int64_t i = 0; i < s.steps; ++i) {
    std::vector<Batch> batches;
    int64_t rows = 0, targets = 0;
    for (const BatchRows& b :
         sampler.micro_batches(position, mesh.world->rank(), mesh.world->size())) {
      batches.push_back(make_batch(samples, b.sample_ids, b.places));
      rows += batches.back().rows;
      targets += batches.back().valid_targets;
    }
    outcome.ranks_empty += rows == 0;
    outcome.ranks_masked += rows > 0 && targets == 0;
    add_figures(step.run(batches, i, 0.01, false), step.routing(), outcome);
    outcome.figures["parameter norm"].push_back(step.parameter_norm());
    position = sampler.after(position);
  }
  outcome.ranks_empty = mesh.world->sum(outcome.ranks_empty);
  outcome.ranks_masked = mesh.world->sum(outcome.ranks_masked);
  for (Parameter* p : store.parameters()) outcome.parameters[p->name()] = gathered(*p, mesh);
  return outcome;
}

// The outcome of rank 0 on ranks that are threads.
inline Outcome train_on_threads(const Scenario& s, const Layout& layout) {
  Outcome outcome;
  run_ranks(layout.ranks, [&](std::shared_ptr<Communicator> world) {
    int rank = world->rank();
    Outcome mine = train_on(s, layout, std::move(world));
    if (rank == 0) outcome = std::move(mine);
  });
  return outcome;
}

// Largest difference relative to the largest value of each parameter (or figure).
inline double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double worst = a.size() == b.size() ? 0 : INFINITY, largest = 1e-12;
  for (double x : a) largest = std::max(largest, std::abs(x));
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    double d = std::abs(a[i] - b[i]) / largest;
    if (!(d <= worst)) worst = std::isnan(d) ? INFINITY : d;
  }
  return worst;
}

// |a - b| / |a| in the L2 norm, of all parameters as one vector.
inline double norm_distance(const Outcome::Numbers& a, const Outcome::Numbers& b) {
  double difference = 0, size = 0;
  for (auto& [name, values] : a) {
    const std::vector<double>& others = b.at(name);
    if (others.size() != values.size()) return INFINITY;
    for (size_t i = 0; i < values.size(); ++i) {
      difference += (values[i] - others[i]) * (values[i] - others[i]);
      size += values[i] * values[i];
    }
  }
  return std::sqrt(difference / size);
}

// The worst of all parameters and figures, and which it is.
struct Distance {
  double value = 0;
  std::string of;
  void take(const std::string& name, double d) {
    if (d <= value) return;
    value = d;
    of = name;
  }
};

inline Distance distance(const Outcome::Numbers& a, const Outcome::Numbers& b) {
  Distance worst;
  for (auto& [name, values] : a) worst.take(name, distance(values, b.at(name)));
  return worst;
}

inline Distance distance(const Outcome& a, const Outcome& b) {
  Distance figures = distance(a.figures, b.figures);
  Distance parameters = distance(a.parameters, b.parameters);
  return figures.value > parameters.value ? figures : parameters;
}

// The circumstances under which every layout must train alike, in f64. Named where tests ask more
// of one.
inline const Scenario kPadded{};
inline const Scenario kModern{.balance = "switch", .modern = true};
inline const Scenario kFew{.name = "few", .batch = 3};  // ranks without a sample
inline const Scenario kMasked{.masked_rows = true};     // ranks without a valid target
inline const Scenario kAllOnOne{.policy = "top1", .all_on_one = true};
inline const Scenario kDropout{.batch = 5, .dropout = 0.2};
inline const Scenario kModernDropout{.policy = "random_one_or_two", .dropout = 0.2, .modern = true};

}  // namespace adagate::tiny
