// A decoder with a fixture's weights, and the steps of a trainer as plainly as they can be written.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/nn/parameter_store.h"
#include "core/ops/adamw_update.h"
#include "core/optim/adamw.h"
#include "models/decoder.h"
#include "moe/routing_step.h"
#include "tests/support/reference_fixture.h"

namespace adagate::test {

// i32 [rows, length] each; lengths i32 [rows] or empty.
struct TokenBatch {
  Tensor tokens, targets, lengths;
};

struct RunOptions {
  DType type = DType::f32;  // of the activations; f64 has an f64 master
  int64_t micro_batch = 0;  // rows of each; 0: all at once
  bool recompute = false;
};

class ReferenceRun {
 public:
  ReferenceRun(const ReferenceFixture& fixture, const ReferenceFixture& weights, RunOptions options)
      : options_(options),
        mesh_(make_self_mesh()),
        moe_(fixture.config<MoeConfig>("moe")),
        decoder_(fixture.config<ModelConfig>("model"), moe_, mesh_),
        store_(decoder_, {.master = options.type == DType::f64 ? DType::f64 : DType::f32,
                          .compute = options.type,
                          .allocate_grad = {}}),
        routing_(decoder_.moe_layers(), std::max<int64_t>(1, moe_.experts),
                 moe_.resolved_balance()) {
    for (Parameter* p : store_.parameters()) weights.set_weight(*p);
    store_.refresh_compute();
  }

  Decoder& decoder() { return decoder_; }
  ParameterStore& store() { return store_; }
  RoutingStep& routing() { return routing_; }

  // [rows, length, vocabulary]
  Tensor logits(const TokenBatch& batch) {
    NoRecording off;
    return decoder_.logits(decoder_.forward(flat(batch.tokens), context(), rows_of(batch)));
  }

  // Gradients of the mean cross-entropy plus the balance losses over the whole batch; returns the
  // former.
  double forward_and_backward(const TokenBatch& batch) {
    int64_t valid = 0;
    for (int64_t i = 0; i < batch.targets.numel(); ++i)
      valid += batch.targets.data<int32_t>()[i] >= 0;
    double scale = 1.0 / static_cast<double>(valid), sum = 0;
    std::vector<TokenBatch> parts = split(batch);
    auto& world = *mesh_.world;
    store_.clear_gradients();
    routing_.begin(static_cast<int64_t>(parts.size()));
    if (decoder_.moe_layers() > 0 && routing_.needs_counting_pass()) {
      NoRecording off;
      for (size_t m = 0; m < parts.size(); ++m) {
        routing_.begin_micro_batch(static_cast<int64_t>(m));
        decoder_.forward(flat(parts[m].tokens), context(), rows_of(parts[m]));
      }
      routing_.reduce(world);
    }
    for (size_t m = 0; m < parts.size(); ++m) {
      routing_.begin_micro_batch(static_cast<int64_t>(m));
      StepContext context = this->context();
      TokenRows rows = rows_of(parts[m]);
      Tape tape;
      CrossEntropy entropy;
      {
        Recording on(tape);
        entropy = decoder_.loss(
            flat(parts[m].tokens),
            loss_targets(flat(parts[m].targets).to_host<int32_t>(), decoder_.config().vocabulary),
            scale, context, rows);
      }
      routing_.end_forward(world);
      tape.backward(entropy.loss);
      sum += entropy.sum.to_host<double>()[0];
    }
    routing_.end(world);
    store_.zero_untouched_gradients();
    return sum * scale;
  }

  double gradient_norm() {
    double squares = 0;
    for (ParameterGroup g : kAllGroups)
      if (store_.group(g).size() > 0) squares += sum_of_squares(store_.group(g).grad);
    return std::sqrt(squares);
  }

 private:
  static Tensor flat(const Tensor& x) { return x.reshape({x.numel()}); }

  std::vector<TokenBatch> split(const TokenBatch& batch) const {
    int64_t rows = batch.tokens.dim(0);
    int64_t step = options_.micro_batch > 0 ? options_.micro_batch : rows;
    std::vector<TokenBatch> parts;
    for (int64_t begin = 0; begin < rows; begin += step) {
      int64_t end = std::min(rows, begin + step);
      parts.push_back({batch.tokens.slice(begin, end), batch.targets.slice(begin, end),
                       batch.lengths ? batch.lengths.slice(begin, end) : Tensor()});
    }
    return parts;
  }

  StepContext context() {
    return {.training = true,
            .recompute_blocks = options_.recompute,
            .routing = decoder_.moe_layers() > 0 ? &routing_ : nullptr};
  }

  static TokenRows rows_of(const TokenBatch& batch) {
    int64_t samples = batch.tokens.dim(0), length = batch.tokens.dim(1);
    if (!batch.lengths) return padded_rows(samples, length);
    return padded_rows({batch.lengths.data<int32_t>(), static_cast<size_t>(samples)}, length);
  }

  RunOptions options_;
  Mesh mesh_;
  MoeConfig moe_;
  Decoder decoder_;
  ParameterStore store_;
  RoutingStep routing_;
};

}  // namespace adagate::test
