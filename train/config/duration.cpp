#include "train/config/duration.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "core/base/error.h"

namespace adagate {
namespace {

[[noreturn]] void bad(const std::string& word, const std::string& why) {
  fail("expected a duration such as 2000s (steps), 3.2Mt (tokens) or 1e (epochs), got '{}': {}",
       word, why);
}

double factor_of(char suffix) {
  switch (suffix) {
    case 'k':
      return 1e3;
    case 'M':
      return 1e6;
    case 'G':
      return 1e9;
    default:
      return 0.0;
  }
}

// The whole number that `value` is but for the rounding of a decimal fraction, else `value`.
double snapped(double value) {
  double nearest = std::round(value);
  return std::abs(value - nearest) <= 1e-12 * std::max(1.0, value) ? nearest : value;
}

}  // namespace

Duration Duration::parse(const std::string& word) {
  if (word.empty()) bad(word, "it is empty");
  char unit = word.back();
  if (unit >= '0' && unit <= '9') bad(word, "the unit s, t or e is missing");
  if (unit != 's' && unit != 't' && unit != 'e') {
    if (factor_of(unit) > 0) bad(word, "the unit s, t or e is missing behind the suffix");
    bad(word, fmt::format("'{}' is no unit; use s, t or e", unit));
  }
  size_t digits = word.size() - 1;
  double factor = 1.0;
  if (digits > 0 && factor_of(word[digits - 1]) > 0) factor = factor_of(word[--digits]);
  if (digits == 0) bad(word, "the number is missing");
  double number = 0.0;
  auto [end, error] =
      std::from_chars(word.data(), word.data() + digits, number, std::chars_format::fixed);
  if (error != std::errc() || end != word.data() + digits || !std::isfinite(number))
    bad(word, fmt::format("'{}' is no number", word.substr(0, digits)));
  if (number < 0 || std::signbit(number)) bad(word, "it is negative");
  double value = number * factor;
  if (unit != 'e') value = snapped(value);
  if (value > 1e18) bad(word, "it is larger than 1e18");
  if (unit == 's' && value != std::floor(value)) bad(word, "steps must be whole");
  return {value, static_cast<Unit>(unit)};
}

std::string Duration::text() const {
  auto number_text = [](double value) {
    char buffer[400];
    auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed).ptr;
    return std::string(buffer, end);
  };
  std::string shortest = number_text(value_);
  if (unit_ == Unit::tokens) {
    // A suffix where it shortens the number and gives exactly the same value back.
    for (auto [scale, suffix] : {std::pair{1e3, 'k'}, {1e6, 'M'}, {1e9, 'G'}}) {
      std::string scaled = number_text(value_ / scale) + suffix;
      if (value_ / scale * scale == value_ && scaled.size() < shortest.size()) shortest = scaled;
    }
  }
  return shortest + static_cast<char>(unit_);
}

double UnevenEpochs::steps(double epochs) const {
  double whole = std::floor(snapped(epochs)), part = std::max(0.0, epochs - whole);
  double planned = std::min(whole, static_cast<double>(kPlanned)), sum = 0;
  for (int64_t e = 0; e < static_cast<int64_t>(planned); ++e)
    sum += static_cast<double>(steps_of(e));
  if (whole > planned) sum += (whole - planned) * static_cast<double>(steps_of(kPlanned));
  if (part == 0) return sum;
  int64_t last = static_cast<int64_t>(std::min(whole, 1e18));
  // The part is known as well as the whole number: to that many digits of it.
  double steps = part * static_cast<double>(steps_of(last));
  return sum + std::ceil(steps - 1e-9 * std::max(1.0, steps));
}

double UnevenEpochs::epochs(int64_t steps) const {
  int64_t epoch = 0;
  for (; epoch < kPlanned && steps >= steps_of(epoch); ++epoch) steps -= steps_of(epoch);
  return static_cast<double>(epoch) +
         static_cast<double>(steps) / static_cast<double>(steps_of(epoch));
}

int64_t Duration::steps(const StepSizes& sizes) const {
  double steps = value_;
  if (sizes.uneven && unit_ != Unit::steps) {
    steps = sizes.uneven->steps(in_epochs(sizes));
  } else {
    if (unit_ == Unit::tokens) steps = value_ / static_cast<double>(sizes.tokens_per_step);
    if (unit_ == Unit::epochs) steps = value_ * static_cast<double>(sizes.steps_per_epoch);
  }
  steps = std::ceil(snapped(steps));
  constexpr double kMost = 4611686018427387904.0;  // 2^62
  return static_cast<int64_t>(std::min(steps, kMost));
}

double Duration::in_epochs(const StepSizes& sizes) const {
  return unit_ == Unit::epochs ? value_ : value_ / static_cast<double>(sizes.uneven->tokens);
}

int64_t times_due(const Duration& every, const StepSizes& sizes, int64_t first, int64_t last) {
  if (every.is_zero() || last < first) return 0;
  if (!sizes.uneven || every.unit() == Duration::Unit::steps) {
    int64_t steps = std::max<int64_t>(1, every.steps(sizes));
    return last / steps - (first - 1) / steps;
  }
  auto times = [&](int64_t step) {
    double passed = sizes.uneven->epochs(step) / every.in_epochs(sizes);
    return static_cast<int64_t>(std::floor(passed + 1e-9 * std::max(1.0, passed)));
  };
  return std::min(times(last) - times(first - 1), last - first + 1);
}

}  // namespace adagate
