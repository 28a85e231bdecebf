#include "data/epoch_plan.h"

#include <algorithm>

#include "core/base/counted.h"

namespace adagate {

std::string text_of(const BatchRule& rule) {
  return counted(rule.size, rule.unit == BatchRule::Unit::tokens ? "token" : "sample");
}

int64_t EpochPlan::step_at(int64_t first) const {
  auto it = std::lower_bound(first_.begin(), first_.end(), first);
  return it != first_.end() && *it == first ? it - first_.begin() : -1;
}

EpochPlan plan_epoch(std::span<const int64_t> order, std::span<const int32_t> lengths,
                     const BatchRule& rule) {
  EpochPlan plan;
  bool tokens = rule.unit == BatchRule::Unit::tokens;
  auto size_of = [&](int64_t id) -> int64_t {
    return tokens ? lengths[static_cast<size_t>(id)] : 1;
  };
  int64_t filled = 0, places = static_cast<int64_t>(order.size());
  for (int64_t place = 0; place < places; ++place) {
    int64_t size = size_of(order[static_cast<size_t>(place)]);
    bool begun = place > plan.first_.back();
    if (begun && filled + size > rule.size) {
      plan.first_.push_back(place);
      filled = 0;
    }
    filled += size;
  }
  bool dropped = rule.drop_last && filled < rule.size;
  if (places > 0 && !dropped) plan.first_.push_back(places);
  return plan;
}

}  // namespace adagate
