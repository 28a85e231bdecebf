#include "core/optim/adamw.h"

#include <algorithm>
#include <cmath>

namespace adagate {
namespace {

OwnedRanges all_of(ParameterStore& store) {
  OwnedRanges all;
  for (ParameterGroup g : kAllGroups) all[g].push_back({0, store.group(g).size()});
  return all;
}

FlatRange common(const FlatRange& a, const FlatRange& b) {
  return {std::max(a.begin, b.begin), std::min(a.end, b.end)};
}

void check_owned(const std::vector<FlatRange>& ranges, ParameterGroup group, int64_t size) {
  int64_t last = 0;
  for (const FlatRange& r : ranges) {
    check(last <= r.begin && r.begin <= r.end && r.end <= size,
          "AdamW: elements [{}, {}) of the {} parameters can't be owned: they don't lie within "
          "[{}, {}), behind the range before",
          r.begin, r.end, name_of(group), last, size);
    last = r.end;
  }
}

// Neighbouring parameters with the same decay, from the first of one to the first of the next.
struct DecaySpan {
  FlatRange range;
  bool decay;
};

// One kernel runs over all neighbours that are treated alike, not one for each parameter.
std::vector<DecaySpan> decay_spans(const FlatGroup& flat) {
  std::vector<DecaySpan> spans;
  for (const Parameter* p : flat.parameters) {
    bool decay = p->spec().decay;
    if (!spans.empty() && spans.back().decay == decay) continue;
    if (!spans.empty()) spans.back().range.end = p->offset();
    spans.push_back({{p->offset(), flat.size()}, decay});
  }
  return spans;
}

}  // namespace

AdamW::AdamW(ParameterStore& store, const OptimizerConfig& config)
    : AdamW(store, config, all_of(store)) {
  owns_all_ = true;
}

AdamW::AdamW(ParameterStore& store, const OptimizerConfig& config, const OwnedRanges& owned)
    : store_(store), config_(config) {
  for (ParameterGroup g : kAllGroups) {
    const FlatGroup& flat = store.group(g);
    check_owned(owned[g], g, flat.size());
    Group& group = groups_[g];
    int64_t moments = 0;
    for (const FlatRange& range : owned[g]) {
      group.owned.push_back({range, moments});
      for (const auto& [span, decay] : decay_spans(flat)) {
        FlatRange part = common(span, range);
        if (part.size() > 0)
          group.segments.push_back({{part, moments + part.begin - range.begin}, decay});
      }
      moments += range.size();
    }
    group.m = Tensor::zeros({moments}, flat.master.dtype(), flat.master.device());
    group.v = Tensor::zeros({moments}, flat.master.dtype(), flat.master.device());
  }
}

void AdamW::step(double learning_rate, double gradient_factor) {
  // The bias corrections 1 - beta^t of Kingma and Ba (2015), Algorithm 1, and the decay of
  // Loshchilov and Hutter (2019), Algorithm 2, are factors of the whole step: computed once, in
  // f64.
  steps_++;
  double t = static_cast<double>(steps_);
  for (ParameterGroup g : kAllGroups) {
    FlatGroup& flat = store_.group(g);
    Group& group = groups_[g];
    for (const auto& [owned, decay] : group.segments) {
      int64_t n = owned.range.size();
      auto piece = [&](const Tensor& buffer) {
        return buffer ? buffer.slice(owned.range.begin, owned.range.end).raw() : nullptr;
      };
      auto moment = [&](const Tensor& buffer) {
        return buffer.slice(owned.moment, owned.moment + n).raw();
      };
      launch_on(
          flat.master.device(),
          AdamWArgs{.value = piece(flat.master),
                    .gradient = piece(flat.grad),
                    .m = moment(group.m),
                    .v = moment(group.v),
                    .compute = piece(flat.compute),
                    .n = n,
                    .factors = {.gradient = gradient_factor,
                                .beta1 = config_.beta1,
                                .beta2 = config_.beta2,
                                .new1 = 1 - config_.beta1,
                                .new2 = 1 - config_.beta2,
                                .rate = learning_rate / (1 - std::pow(config_.beta1, t)),
                                .root = 1 / std::sqrt(1 - std::pow(config_.beta2, t)),
                                .epsilon = config_.epsilon,
                                .shrink = decay ? 1 - learning_rate * config_.weight_decay : 1.0},
                    .dtype = flat.master.dtype()});
    }
  }
}

Tensor AdamW::moment(Tensor Group::*which, const Parameter& p) const {
  const Group& group = groups_[p.spec().group];
  for (const auto& [range, moment] : group.owned) {
    if (p.offset() < range.begin || p.offset() + p.numel() > range.end) continue;
    int64_t first = moment + p.offset() - range.begin;
    return (group.*which).slice(first, first + p.numel()).reshape(p.spec().shape);
  }
  fail("{}: its moments are not all owned by this rank; states() lists those that are", p.name());
}

Tensor AdamW::first_moment(const Parameter& p) const {
  return moment(&Group::m, p);
}

Tensor AdamW::second_moment(const Parameter& p) const {
  return moment(&Group::v, p);
}

StateTensor AdamW::state(const char* kind, Tensor Group::*which, const Parameter& p) const {
  std::string name = kind + p.name();
  if (owns_all_) return state_tensor(name, moment(which, p), p.spec().shard);
  const Group& group = groups_[p.spec().group];
  // Elements of the whole parameter before this rank's.
  int64_t before = p.spec().is_whole() ? 0 : p.spec().shard.begin * (p.numel() / p.spec().shape[0]);
  Tensor part = Tensor::empty({0}, group.m.dtype(), group.m.device());
  int64_t begin = 0;
  for (const auto& [range, moment] : group.owned) {
    FlatRange own = common({p.offset(), p.offset() + p.numel()}, range);
    if (own.size() <= 0) continue;
    // A shard in a checkpoint is one range of elements.
    check(part.numel() == 0, "{}: several ranges of its moments are owned; a checkpoint takes one",
          p.name());
    int64_t first = moment + own.begin - range.begin;
    part = (group.*which).slice(first, first + own.size());
    begin = before + own.begin - p.offset();
  }
  return state_elements(name, part, p.spec().global_shape(), begin);
}

std::vector<StateTensor> AdamW::states() const {
  std::vector<StateTensor> states;
  for (const Parameter* p : store_.parameters()) {
    states.push_back(state("adam_m/", &Group::m, *p));
    states.push_back(state("adam_v/", &Group::v, *p));
  }
  return states;
}

}  // namespace adagate
