// A training step of a small decoder on one rank, on batches made up from an id: what the guards of
// a step's cost run (tests/train/test_warm_step.cpp, tests/tools/one_step.cpp).
#pragma once

#include <span>

#include "core/base/rng.h"
#include "core/optim/adamw.h"
#include "models/decoder.h"
#include "parallel/mesh.h"
#include "train/run_state.h"
#include "train/tasks/next_token.h"
#include "train/training_step.h"

namespace adagate::fixed_step {

struct Sizes {
  int64_t layers = 2, width = 32, heads = 2, vocabulary = 61, batch = 8, sequence = 16;
  int64_t experts = 0;  // 0: dense
  double threshold = 0.1;
  bool padded = false;  // samples of different lengths
  std::string policy = "adaptive";
  std::string preset = "custom";
  double dropout = 0;

  ModelConfig model() const {
    ModelConfig m;
    m.preset = preset;
    m.apply_preset();
    m.dropout = m.attention_dropout = dropout;
    m.layers = layers;
    m.width = width;
    m.heads = heads;
    m.context = sequence;
    m.vocabulary = vocabulary;
    m.initializer_range = 0.3;  // large enough that the gate's choices differ between tokens
    return m;
  }
  MoeConfig moe() const {
    MoeConfig m;
    m.experts = experts;
    m.gate.policy = policy;
    m.gate.threshold = threshold;
    m.balance.coefficient = 0.05;
    m.balance.z_coefficient = 0.01;
    return m;
  }
};

// One sample always has the full length, so that all batches are padded to the same shape.
inline Batch make_up_batch(const Sizes& sizes, int64_t id) {
  Rng rng(11, RngStream::test, 0, static_cast<uint64_t>(id));
  Batch batch;
  batch.rows = sizes.batch;
  batch.sequence = sizes.sequence;
  for (int64_t r = 0; r < sizes.batch; ++r) {
    int64_t length = sizes.sequence;
    if (sizes.padded && r > 0) length = 1 + (r * 5 + id * 3) % sizes.sequence;
    batch.lengths.push_back(static_cast<int32_t>(length));
    batch.sample_ids.push_back(id * sizes.batch + r);
    batch.places.push_back(r);
    for (int64_t t = 0; t < sizes.sequence; ++t) {
      auto draw = rng.at(static_cast<uint64_t>(r * sizes.sequence + t));
      bool real = t < length;
      auto vocabulary = static_cast<uint32_t>(sizes.vocabulary);
      batch.tokens.push_back(real ? static_cast<int32_t>(draw[0] % vocabulary) : 0);
      batch.targets.push_back(real ? static_cast<int32_t>(draw[1] % vocabulary) : -1);
    }
    batch.valid_targets += length;
  }
  return batch;
}

class Trainer {
 public:
  explicit Trainer(const Sizes& sizes, const StoreOptions& options = {},
                   const Mesh& mesh = make_self_mesh(), bool recompute_blocks = false)
      : mesh_(mesh),
        model_(sizes.model(), sizes.moe(), mesh_),
        store_(model_, options),
        adamw_(store_, {}),
        step_(model_, kNextToken, store_, adamw_, mesh_,
              {.seed = 9, .recompute_blocks = recompute_blocks}) {
    store_.initialize(5);
  }

  StepResult run(const Batch& batch, double learning_rate) {
    return run(std::span(&batch, 1), learning_rate);
  }
  StepResult run(std::span<const Batch> micro_batches, double learning_rate) {
    return step_.run(micro_batches, steps_++, learning_rate, false);
  }
  ParameterStore& store() { return store_; }
  // Values and moments, as a checkpoint has them.
  std::vector<StateTensor> states() {
    std::vector<StateTensor> all = model_states(store_, model_);
    for (StateTensor& moment : adamw_.states()) all.push_back(std::move(moment));
    return all;
  }
  Decoder& model() { return model_; }
  const TrainingStep& step() const { return step_; }

  // Rows that the experts of all MoE layers worked on in the last step.
  int64_t assignments() const {
    double sum = 0;
    for (int64_t l = 0; l < model_.moe_layers(); ++l) sum += step_.routing().layer(l).assignments();
    return static_cast<int64_t>(sum);
  }

 private:
  Mesh mesh_;
  Decoder model_;
  ParameterStore store_;
  AdamW adamw_;
  TrainingStep step_;
  int64_t steps_ = 0;
};

}  // namespace adagate::fixed_step
