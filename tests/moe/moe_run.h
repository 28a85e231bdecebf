// Runs one MoE layer over a global batch in any layout: ranks x expert parallelism x micro-batches,
// with or without recomputation, by the protocol of moe/routing_step.h.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "core/nn/parameter_store.h"
#include "moe/moe_layer.h"
#include "moe/routing_step.h"
#include "parallel/thread_communicator.h"
#include "tests/moe/moe_inputs.h"

namespace adagate::test {

struct GlobalBatch {
  Tensor x, cotangent;  // [tokens, width] f64
  Tensor mask;          // u8 [tokens] or empty
};

struct Layout {
  int ranks = 1, expert_parallel = 1, micro_batches = 1;
  bool recompute = false;
  DType type = DType::f64;           // of the activations; master f64 or f32
  std::vector<int64_t> pieces = {};  // tokens of each (micro-batch, rank); default: even
};

struct LayerRun {
  Tensor y, dx;                         // [tokens, width]
  std::map<std::string, Tensor> grads;  // by parameter, whole (all experts)
  double loss = 0;                      // <y, cotangent>
  double auxiliary = 0;
  std::vector<LayerRouting> routing;
};

using WeightSetter = std::function<void(const std::string& name, Parameter&)>;

inline std::vector<int64_t> piece_sizes(const Layout& layout, int64_t tokens) {
  if (!layout.pieces.empty()) return layout.pieces;
  int64_t n = layout.ranks * layout.micro_batches;
  std::vector<int64_t> sizes(static_cast<size_t>(n), tokens / n);
  sizes.back() += tokens % n;
  return sizes;
}

// One rank's part of the run.
class RankRun {
 public:
  RankRun(const MoeLayerConfig& config, const Layout& layout, const GlobalBatch& batch,
          std::shared_ptr<Communicator> world, LayerRun& result, std::mutex& mutex)
      : layout_(layout),
        batch_(batch),
        mesh_(make_mesh(std::move(world), layout.expert_parallel)),
        layer_(config, mesh_),
        store_(layer_, {.master = layout.type == DType::f64 ? DType::f64 : DType::f32,
                        .compute = layout.type,
                        .allocate_grad = {}}),
        step_(1, config.moe.experts, config.moe.resolved_balance()),
        result_(result),
        mutex_(mutex) {}

  void run(const WeightSetter& set_weights) {
    store_.initialize(3);
    if (set_weights)
      for (Parameter* p : store_.parameters()) set_weights(p->name(), *p);
    store_.refresh_compute();
    store_.clear_gradients();
    step_.begin(layout_.micro_batches);
    if (step_.needs_counting_pass()) {
      NoRecording off;
      for (int m = 0; m < layout_.micro_batches; ++m) forward(m);
      step_.reduce(*mesh_.world);
    }
    for (int m = 0; m < layout_.micro_batches; ++m) forward_and_backward(m);
    step_.end(*mesh_.world);
    store_.zero_untouched_gradients();
    collect_gradients();
  }

 private:
  struct Piece {
    int64_t begin, end;
  };
  Piece piece(int m) const {
    auto sizes = piece_sizes(layout_, batch_.x.rows());
    auto index = static_cast<size_t>(m * layout_.ranks + mesh_.world->rank());
    int64_t begin = 0;
    for (size_t i = 0; i < index; ++i) begin += sizes[i];
    return {begin, begin + sizes[index]};
  }

  // Sets x_ to this rank's rows and runs the layer on them.
  Tensor forward(int m) {
    auto [begin, end] = piece(m);
    step_.begin_micro_batch(m);
    context_ = {.training = true, .seed = 11, .step = 5, .routing = &step_};
    rows_ = padded_rows(1, end - begin);
    rows_.addresses = Tensor::empty({end - begin}, DType::i64);
    for (int64_t t = begin; t < end; ++t) rows_.addresses.data<int64_t>()[t - begin] = t;
    if (batch_.mask) rows_.mask = batch_.mask.slice(begin, end);
    x_ = batch_.x.slice(begin, end).clone().to(layout_.type);
    x_.set_slot(std::make_shared<GradSlot>());
    auto body = [this](const Tensor& in) { return layer_.forward(in, context_, rows_); };
    return layout_.recompute ? recompute(x_, body) : body(x_);
  }

  void forward_and_backward(int m) {
    auto [begin, end] = piece(m);
    Tape tape;
    Tensor y;
    {
      Recording on(tape);
      y = forward(m);
    }
    step_.end_forward(*mesh_.world);
    Tensor dy = batch_.cotangent.slice(begin, end).to(layout_.type);
    tape.backward(y, dy);
    std::lock_guard lock(mutex_);
    result_.y.slice(begin, end).copy_from(y);
    if (x_.slot()->filled()) result_.dx.slice(begin, end).copy_from(x_.slot()->value());
    Tensor mine = y.to(DType::f64), weights = batch_.cotangent.slice(begin, end);
    for (int64_t i = 0; i < mine.numel(); ++i)
      result_.loss += mine.data<double>()[i] * weights.data<double>()[i];
  }

  void collect_gradients() {
    for (Parameter* p : store_.parameters()) {
      mesh_.group(p->spec().group)
          .copies->all_reduce(p->grad().raw(), p->numel(), p->grad().dtype(), ReduceOp::sum);
      std::lock_guard lock(mutex_);
      Tensor& whole = result_.grads[p->name()];
      if (!whole) whole = Tensor::zeros(p->spec().global_shape(), DType::f64);
      p->spec().part_of(whole).copy_from(p->grad());
    }
    if (mesh_.world->rank() != 0) return;
    result_.auxiliary = step_.auxiliary_loss();
    result_.routing = {step_.layer(0)};
  }

  const Layout& layout_;
  const GlobalBatch& batch_;
  Mesh mesh_;
  MoeLayer layer_;
  ParameterStore store_;
  RoutingStep step_;
  LayerRun& result_;
  std::mutex& mutex_;
  StepContext context_;
  TokenRows rows_;
  Tensor x_;
};

inline LayerRun run_layer(const MoeLayerConfig& config, const GlobalBatch& batch,
                          const Layout& layout = {}, const WeightSetter& set_weights = nullptr) {
  LayerRun result;
  result.y = Tensor::zeros(batch.x.shape(), DType::f64);
  result.dx = Tensor::zeros(batch.x.shape(), DType::f64);
  std::mutex mutex;
  run_ranks(layout.ranks, [&](std::shared_ptr<Communicator> world) {
    RankRun(config, layout, batch, std::move(world), result, mutex).run(set_weights);
  });
  return result;
}

inline MoeLayerConfig small_layer(const std::string& policy = "adaptive",
                                  const std::string& loss = "paper") {
  MoeLayerConfig config{.width = 12,
                        .hidden = 10,
                        .activation = Activation::gelu,
                        .bias = true,
                        .initial_stddev = 0.3,
                        .output_initial_stddev = 0.3};
  config.moe.experts = 8;
  config.moe.gate.policy = policy;
  config.moe.gate.two_expert_share = 0.4;
  config.moe.balance.loss = loss;
  config.moe.balance.coefficient = 0.7;  // large, so that its gradient shows
  config.moe.balance.z_coefficient = 0.05;
  return config;
}

inline GlobalBatch small_batch(int64_t tokens, int64_t width = 12, bool padded = false) {
  return {random_normal({tokens, width}, 41), random_normal({tokens, width}, 42),
          padded ? padded_mask(tokens) : Tensor()};
}

}  // namespace adagate::test
