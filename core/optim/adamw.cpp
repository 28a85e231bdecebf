#include "core/optim/adamw.h"

#include <cmath>

namespace adagate {

AdamW::AdamW(ParameterStore& store, const OptimizerConfig& config)
    : store_(store), config_(config) {
  for (ParameterGroup g : kAllGroups) {
    FlatGroup& flat = store.group(g);
    Group& group = groups_[g];
    group.m = Tensor::zeros(flat.master.shape(), flat.master.dtype(), flat.master.device());
    group.v = Tensor::zeros(flat.master.shape(), flat.master.dtype(), flat.master.device());
    for (Parameter* p : flat.parameters) {
      bool decay = p->spec().decay;
      if (group.segments.empty() || group.segments.back().decay != decay) {
        if (!group.segments.empty()) group.segments.back().range.end = p->offset();
        group.segments.push_back({{p->offset(), 0}, decay});
      }
    }
    if (!group.segments.empty()) group.segments.back().range.end = flat.size();
  }
}

void AdamW::step(double learning_rate, double gradient_factor) {
  steps_++;
  double t = static_cast<double>(steps_);
  for (ParameterGroup g : kAllGroups) {
    FlatGroup& flat = store_.group(g);
    Group& group = groups_[g];
    for (const Segment& s : group.segments) {
      auto piece = [&](const Tensor& buffer) {
        return buffer ? buffer.slice(s.range.begin, s.range.end).raw() : nullptr;
      };
      launch_on(
          flat.master.device(),
          AdamWArgs{.value = piece(flat.master),
                    .gradient = piece(flat.grad),
                    .m = piece(group.m),
                    .v = piece(group.v),
                    .compute = piece(flat.compute),
                    .n = s.range.size(),
                    .factors = {.gradient = gradient_factor,
                                .beta1 = config_.beta1,
                                .beta2 = config_.beta2,
                                .new1 = 1 - config_.beta1,
                                .new2 = 1 - config_.beta2,
                                .rate = learning_rate / (1 - std::pow(config_.beta1, t)),
                                .root = 1 / std::sqrt(1 - std::pow(config_.beta2, t)),
                                .epsilon = config_.epsilon,
                                .shrink = s.decay ? 1 - learning_rate * config_.weight_decay : 1.0},
                    .dtype = flat.master.dtype()});
    }
  }
}

Tensor AdamW::first_moment(const Parameter& p) const {
  const Tensor& m = groups_[p.spec().group].m;
  return m.slice(p.offset(), p.offset() + p.numel()).reshape(p.spec().shape);
}

Tensor AdamW::second_moment(const Parameter& p) const {
  const Tensor& v = groups_[p.spec().group].v;
  return v.slice(p.offset(), p.offset() + p.numel()).reshape(p.spec().shape);
}

std::vector<StateTensor> AdamW::states() const {
  std::vector<StateTensor> states;
  for (Parameter* p : store_.parameters()) {
    states.push_back(state_tensor("adam_m/" + p->name(), first_moment(*p), p->spec().shard));
    states.push_back(state_tensor("adam_v/" + p->name(), second_moment(*p), p->spec().shard));
  }
  return states;
}

}  // namespace adagate
