// How the samples of an epoch are gathered into steps.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace adagate {

// What a step takes at most, over all ranks and micro-batches. A sample of more tokens than that is
// a step of its own.
struct BatchRule {
  enum class Unit : uint8_t { samples, tokens };
  Unit unit = Unit::samples;
  int64_t size = 8;
  bool drop_last = false;  // of samples only: leave out an epoch's last, smaller batch

  bool operator==(const BatchRule&) const = default;
};

std::string text_of(const BatchRule& rule);  // "4096 tokens"

// Step s takes the samples order[first(s)] ... order[first(s + 1) - 1], at least one.
class EpochPlan {
 public:
  int64_t steps() const { return static_cast<int64_t>(first_.size()) - 1; }
  int64_t first(int64_t step) const { return first_[static_cast<size_t>(step)]; }
  int64_t samples() const { return first_.back(); }  // that the steps take
  // The step that begins with this place of the order; `steps()` for the end; -1: none does.
  int64_t step_at(int64_t first) const;

 private:
  friend EpochPlan plan_epoch(std::span<const int64_t> order, std::span<const int32_t> lengths,
                              const BatchRule& rule);
  std::vector<int64_t> first_{0};
};

// A function of its arguments alone, so the same for any number of ranks. Samples stay in their
// order. `lengths` [samples], by sample id, in tokens: needed where tokens are counted.
EpochPlan plan_epoch(std::span<const int64_t> order, std::span<const int32_t> lengths,
                     const BatchRule& rule);

}  // namespace adagate
