// Config structs name each field once, in a `visit`; parsing, --set, help, defaults, the effective
// config and docs/configuration.md all follow from that one visit.
//
//   struct ScheduleConfig {
//     double learning_rate = 3e-4;
//     std::string decay = "cosine";
//     template <class V, class Self> static void visit(V& v, Self& s) {
//       v.field("learning_rate", s.learning_rate, "peak learning rate", at_least(0.0));
//       v.field("decay", s.decay, "shape after warm-up", one_of({"cosine", "linear", "constant"}));
//     }
//   };
//   // a nested struct is a section:  v.section("schedule", s.schedule, "learning-rate schedule");
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace adagate {

// What a value may be; an unset side means no bound.
struct Constraint {
  double minimum = -std::numeric_limits<double>::infinity();
  double maximum = std::numeric_limits<double>::infinity();
  bool open_minimum = false;         // value must be greater than, not equal to, minimum
  std::vector<std::string> choices;  // for strings: the allowed words
  bool is_path = false;              // for strings: ~ and ${VARIABLE} are expanded on reading
};

inline Constraint at_least(double minimum) {
  return {.minimum = minimum, .choices = {}};
}
inline Constraint greater_than(double minimum) {
  return {.minimum = minimum, .open_minimum = true, .choices = {}};
}
inline Constraint between(double minimum, double maximum) {
  return {.minimum = minimum, .maximum = maximum, .choices = {}};
}
inline Constraint a_path() {
  return {.choices = {}, .is_path = true};
}
inline Constraint one_of(std::vector<std::string> choices) {
  return {.choices = std::move(choices)};
}

// A value written as one word in the YAML file that is parsed by its own type, e.g. the duration
// "2000s": parse() throws Error with what is wrong, text() gives a word that parse() takes back.
template <class T>
concept WordField = requires(const T& value, const std::string& word) {
  { T::parse(word) } -> std::same_as<T>;
  { value.text() } -> std::same_as<std::string>;
};

// Types a field may have: bool, int64_t, double, std::string, std::vector<int64_t>,
// std::vector<double>, std::vector<std::string>, and any WordField. A visitor has
//   template <class T> void field(std::string_view key, T& value, std::string_view doc,
//                                 const Constraint& = {});
//   template <class S> void section(std::string_view key, S& value, std::string_view doc);
// and, if it reads values, `template <class S> void preset(S& s)`: see apply_preset().

// Called in a visit right behind the field `preset`: a reader that has just read that key lets the
// struct set the defaults of the fields that follow (s.apply_preset()), so that explicit keys win
// wherever they stand. Nothing for other visitors.
template <class V, class S>
void apply_preset(V& v, S& s) {
  if constexpr (requires { v.preset(s); }) v.preset(s);
}

}  // namespace adagate
