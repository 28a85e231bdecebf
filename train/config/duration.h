// Spans of training with a unit: 2000s (steps), 3.2Mt (tokens), 1e (epochs).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace adagate {

// Epochs that differ in steps, as batches by tokens fall in each one's order.
struct UnevenEpochs {
  int64_t tokens = 1;                              // of any of them
  std::function<int64_t(int64_t epoch)> steps_in;  // that it took, or is planned to take

  // Epochs are planned one by one as far as this; further ones count as many steps as the first.
  static constexpr int64_t kPlanned = 1000;
  int64_t steps_of(int64_t epoch) const { return steps_in(epoch < kPlanned ? epoch : 0); }
  // Steps until so many epochs have passed, the last of them maybe in part; rounded up.
  double steps(double epochs) const;
  // Epochs that have passed after so many steps.
  double epochs(int64_t steps) const;
};

// What converts tokens and epochs to steps.
struct StepSizes {
  int64_t tokens_per_step = 1;  // tokens of the global batch
  int64_t steps_per_epoch = 1;
  // Takes the place of both: tokens are those of the samples then, a part of an epoch.
  std::optional<UnevenEpochs> uneven = {};
};

// A length of training. Steps are optimizer steps; tokens are those of the global batch.
class Duration {
 public:
  enum class Unit : char { steps = 's', tokens = 't', epochs = 'e' };

  Duration() = default;
  Duration(double value, Unit unit) : value_(value), unit_(unit) {}

  // A number, for tokens and steps with an optional suffix k, M or G (powers of 1000), and the
  // unit. Throws Error saying what is wrong with `word`.
  static Duration parse(const std::string& word);
  // A word that parse() takes back to the same value.
  std::string text() const;

  double value() const { return value_; }
  Unit unit() const { return unit_; }
  bool is_zero() const { return value_ == 0.0; }  // for "every ...": never

  // Whole optimizer steps, rounded up; at most 2^62.
  int64_t steps(const StepSizes& sizes) const;
  // Of tokens or epochs, where epochs differ.
  double in_epochs(const StepSizes& sizes) const;

  bool operator==(const Duration&) const = default;

 private:
  double value_ = 0.0;
  Unit unit_ = Unit::steps;
};

// At how many steps from `first` to `last` is due what comes every so often: at multiples of its
// steps, or, where epochs differ, with the step that completes each such part of the training.
// 0 for a duration of zero, which is never.
int64_t times_due(const Duration& every, const StepSizes& sizes, int64_t first, int64_t last);

}  // namespace adagate
