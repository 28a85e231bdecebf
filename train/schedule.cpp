#include "train/schedule.h"

#include <charconv>
#include <cmath>

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
  if (value > 1e18) bad(word, "it is larger than 1e18");
  if (unit == 's' && value != std::floor(value)) bad(word, "steps must be whole");
  return {value, static_cast<Unit>(unit)};
}

std::string Duration::text() const {
  double value = value_;
  const char* suffix = "";
  if (unit_ == Unit::tokens) {
    // The largest suffix that leaves a number of few digits and gives the same value back.
    for (auto [scale, name] : {std::pair{1e9, "G"}, {1e6, "M"}, {1e3, "k"}}) {
      double scaled = value_ / scale;
      if (scaled < 1.0 || scaled * scale != value_ || scaled * 1000 != std::floor(scaled * 1000))
        continue;
      value = scaled;
      suffix = name;
      break;
    }
  }
  char buffer[64];
  auto result = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed);
  return std::string(buffer, result.ptr) + suffix + static_cast<char>(unit_);
}

int64_t Duration::steps(const StepSizes& sizes) const {
  double steps = value_;
  if (unit_ == Unit::tokens) steps = std::ceil(value_ / static_cast<double>(sizes.tokens_per_step));
  if (unit_ == Unit::epochs) steps = std::ceil(value_ * static_cast<double>(sizes.steps_per_epoch));
  constexpr double kMost = 4611686018427387904.0;  // 2^62
  return static_cast<int64_t>(std::min(steps, kMost));
}

}  // namespace adagate
