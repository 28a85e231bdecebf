// A tiny MoE decoder trained a few steps on made-up samples, on any layout: what the layout,
// determinism and checkpointing tests share.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/base/rng.h"
#include "core/optim/adamw.h"
#include "data/sampler.h"
#include "models/decoder.h"
#include "parallel/thread_communicator.h"
#include "train/training_step.h"

namespace adagate::tiny {

struct Layout {
  int ranks = 1, expert_parallel = 1;
  int64_t accumulation = 1;
  bool checkpoint_blocks = false;
};

// The samples of a step: lengths and contents by sample id, so that any layout sees the same.
struct Scenario {
  std::string name = "padded";
  int64_t batch = 4, sequence = 6, steps = 5;
  DType dtype = DType::f64, compute = DType::f64;
  std::string policy = "adaptive";
  std::string balance = "paper";
  double threshold = 0.1;
  double dropout = 0.0;
  double epsilon = 1e-8;     // of AdamW
  bool masked_rows = false;  // samples 1 mod 2 have no valid target at all
  bool all_on_one = false;   // gate weights such that expert 2 takes every token
};

struct Outcome {
  std::map<std::string, std::vector<double>> parameters;  // global, experts gathered
  std::vector<double> losses, auxiliary, norms, shares;
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
  m.layers = 2;
  m.width = 8;
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
  moe.balance.loss = s.balance;
  moe.balance.coefficient = 0.05;
  moe.balance.z_coefficient = 0.01;
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
  if (p.spec().global_dim0 == 0) return p.master().to_doubles();
  Tensor local = p.master().to(DType::f64);
  Shape whole = p.spec().shape;
  whole[0] = p.spec().global_dim0;
  Tensor all = Tensor::empty(whole, DType::f64);
  mesh.expert->all_gather(local.raw(), all.raw(), local.numel(), DType::f64);
  return all.to_doubles();
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
  TrainingStep step(model, store, adamw, mesh,
                    {.seed = 9, .clip_norm = 0.5, .checkpoint_blocks = layout.checkpoint_blocks});
  Samples samples(s, 64);
  Sampler sampler({.seed = 3, .global_batch = s.batch, .accumulation = layout.accumulation},
                  samples.size());
  Outcome outcome;
  DataPosition position;
  for (int64_t i = 0; i < s.steps; ++i) {
    std::vector<Batch> batches;
    for (const BatchRows& rows :
         sampler.micro_batches(position, mesh.world->rank(), mesh.world->size())) {
      batches.push_back(make_batch(samples, rows.sample_ids, rows.row_ids));
    }
    StepResult r = step.run(batches, i, 0.01, false);
    outcome.losses.push_back(r.loss);
    outcome.auxiliary.push_back(r.auxiliary_loss);
    outcome.norms.push_back(r.grad_norm);
    for (int64_t l = 0; l < model.moe_layers(); ++l) {
      outcome.shares.push_back(step.routing().layer(l).share_with(1));
    }
    position = sampler.after(position);
  }
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

// Largest difference relative to the largest value of each parameter (or metric).
inline double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double worst = a.size() == b.size() ? 0 : INFINITY, largest = 1e-12;
  for (double x : a) largest = std::max(largest, std::abs(x));
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    double d = std::abs(a[i] - b[i]) / largest;
    if (!(d <= worst)) worst = d;
  }
  return worst;
}

inline double distance(const Outcome& a, const Outcome& b) {
  double worst = std::max({distance(a.losses, b.losses), distance(a.auxiliary, b.auxiliary),
                           distance(a.norms, b.norms), distance(a.shares, b.shares)});
  for (auto& [name, values] : a.parameters) {
    worst = std::max(worst, distance(values, b.parameters.at(name)));
  }
  return worst;
}

}  // namespace adagate::tiny
