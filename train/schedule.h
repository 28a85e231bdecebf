// Spans of training with a unit: 2000s (steps), 3.2Mt (tokens), 1e (epochs).
#pragma once

#include <cstdint>
#include <string>

namespace adagate {

// What converts tokens and epochs to steps.
struct StepSizes {
  int64_t tokens_per_step = 1;  // tokens of the global batch
  int64_t steps_per_epoch = 1;
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

  bool operator==(const Duration&) const = default;

 private:
  double value_ = 0.0;
  Unit unit_ = Unit::steps;
};

// How many steps from `first` to `last` are multiples of `every`; 0 for 0, which is never.
int64_t times_due(int64_t every, int64_t first, int64_t last);

}  // namespace adagate
