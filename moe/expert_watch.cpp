#include "moe/expert_watch.h"

#include <algorithm>
#include <fmt/ranges.h>
#include <numeric>

#include "core/base/counted.h"

namespace adagate {
namespace {

using Kind = ExpertEvent::Kind;

double even_load_of(const std::vector<double>& assigned) {
  double sum = std::accumulate(assigned.begin(), assigned.end(), 0.0);
  return sum / static_cast<double>(assigned.size());
}

}  // namespace

std::string describe(const ExpertEvent& e) {
  std::string who = fmt::format("MoE block {}: expert{} {}", e.block,
                                e.experts.size() == 1 ? "" : "s", fmt::join(e.experts, ", "));
  std::string stretch = fmt::format("in {}", counted(e.steps, "step"));
  switch (e.kind) {
    case Kind::starved:
      return fmt::format(
          "{} got {:.0f} of {:.0f} tokens {}, an even load is {:.0f} each: nearly nothing is "
          "learned there; raise moe.balance.coefficient or moe.balance.z_coefficient, or lower "
          "train.optimizer.learning_rate",
          who, e.assigned, e.tokens, stretch, e.even_load);
    case Kind::collapsed:
      return fmt::format(
          "{} took {:.0f} of {:.0f} tokens {}, an even load is {:.0f}: the layer works like a "
          "dense "
          "one; raise moe.balance.coefficient or moe.balance.z_coefficient, or lower "
          "train.optimizer.learning_rate",
          who, e.assigned, e.tokens, stretch, e.even_load);
    case Kind::recovered:
      return fmt::format("{} got {:.0f} of {:.0f} tokens {}: starved no more", who, e.assigned,
                         e.tokens, stretch);
    case Kind::spread:
      return fmt::format("{} took {:.0f} of {:.0f} tokens {}: others work too again", who,
                         e.assigned, e.tokens, stretch);
  }
  return who;
}

bool ExpertWatch::is_whole() const {
  return steps_ >= limits_.steps &&
         std::all_of(layers_.begin(), layers_.end(), [&](const Layer& layer) {
           return even_load_of(layer.assigned) >= limits_.even_load;
         });
}

void ExpertWatch::judge(Layer& layer, std::vector<ExpertEvent>& events) const {
  double even = even_load_of(layer.assigned);
  auto tell = [&](Kind kind, auto&& changed) {
    ExpertEvent event{.kind = kind,
                      .block = layer.block,
                      .experts = {},
                      .steps = steps_,
                      .tokens = layer.tokens,
                      .even_load = even};
    for (size_t e = 0; e < layer.assigned.size(); ++e) {
      if (!changed(e)) continue;
      event.experts.push_back(static_cast<int64_t>(e));
      event.assigned += layer.assigned[e];
    }
    if (!event.experts.empty()) events.push_back(std::move(event));
  };
  auto change = [](char& state, bool now, bool wanted) {
    bool changed = now == wanted && (state != 0) != now;
    if (changed) state = now;
    return changed;
  };
  auto load = [&](size_t e) { return layer.assigned[e] / even; };
  auto takes_all = [&](size_t e) {
    return even <= layer.tokens / 2 && layer.assigned[e] >= limits_.collapsed * layer.tokens;
  };
  tell(Kind::starved,
       [&](size_t e) { return change(layer.starved[e], load(e) < limits_.starved, true); });
  tell(Kind::recovered,
       [&](size_t e) { return change(layer.starved[e], load(e) < limits_.recovered, false); });
  tell(Kind::collapsed, [&](size_t e) { return change(layer.taking[e], takes_all(e), true); });
  tell(Kind::spread, [&](size_t e) { return change(layer.taking[e], takes_all(e), false); });
}

std::vector<ExpertEvent> ExpertWatch::add(const RoutingStep& step) {
  auto experts = static_cast<size_t>(step.experts());
  layers_.resize(static_cast<size_t>(step.layers()));
  for (size_t l = 0; l < layers_.size(); ++l) {
    LayerRouting routing = step.layer(static_cast<int64_t>(l));
    Layer& layer = layers_[l];
    layer.block = routing.block;
    layer.assigned.resize(experts);
    layer.starved.resize(experts);
    layer.taking.resize(experts);
    layer.tokens += routing.sums.tokens;
    for (size_t e = 0; e < experts; ++e) layer.assigned[e] += routing.sums.assigned[e];
  }
  ++steps_;
  std::vector<ExpertEvent> events;
  if (experts < 2 || !is_whole()) return events;
  for (Layer& layer : layers_) {
    judge(layer, events);
    layer.tokens = 0;
    layer.assigned.assign(experts, 0.0);
  }
  steps_ = 0;
  return events;
}

std::string ExpertWatch::starved() const {
  std::string text;
  for (const Layer& layer : layers_) {
    std::vector<size_t> experts;
    for (size_t e = 0; e < layer.starved.size(); ++e)
      if (layer.starved[e]) experts.push_back(e);
    if (experts.empty()) continue;
    text += fmt::format("{}block {}: {}", text.empty() ? "" : "; ", layer.block,
                        fmt::join(experts, ", "));
  }
  return text;
}

}  // namespace adagate
