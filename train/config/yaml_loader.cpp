#include "train/config/yaml_loader.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <fmt/ranges.h>
#include <utility>

#include "core/io/path_text.h"

namespace adagate {
namespace {

using Kind = ConfigNode::Kind;

constexpr size_t kMostMessages = 20;

std::string describe(const ConfigNode& node) {
  switch (node.kind) {
    case Kind::null:
      return "nothing";
    case Kind::list:
      return "a list";
    case Kind::map:
      return "a mapping of keys";
    case Kind::scalar:
      break;
  }
  return node.quoted ? fmt::format("{} in quotes", quote(node.text)) : quote(node.text);
}

[[noreturn]] void wrong_type(const ConfigNode& node, std::string_view expected) {
  fail("expected {}, got {}", expected, describe(node));
}

bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// Numbers as YAML 1.2 has them: also 0x1F and 0o17 (whole ones); .inf and .nan are known, not
// taken.
template <class T>
T number_of(const ConfigNode& node, std::string_view expected) {
  if (node.kind != Kind::scalar || node.quoted || node.text.empty()) wrong_type(node, expected);
  const char* begin = node.text.data();
  const char* end = begin + node.text.size();
  T value{};
  std::from_chars_result result{};
  int base = node.text.starts_with("0x") ? 16 : node.text.starts_with("0o") ? 8 : 10;
  if (base != 10) {
    uint64_t whole = 0;
    result = std::from_chars(begin + 2, end, whole, base);
    if (result.ec == std::errc() && !std::in_range<int64_t>(whole))
      result.ec = std::errc::result_out_of_range;
    value = static_cast<T>(whole);
  } else {
    if (*begin == '+' && end - begin > 1 && begin[1] != '-') ++begin;
    result = std::from_chars(begin, end, value);
  }
  auto [stop, error] = result;
  if (error == std::errc::result_out_of_range && stop == end)
    fail("{} is beyond the range of a 64-bit number", quote(node.text));
  if constexpr (std::is_same_v<T, double>) {
    std::string_view word = std::string_view(node.text);
    if (word.starts_with('+') || word.starts_with('-')) word.remove_prefix(1);
    bool known = is_one_of(word, {".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"});
    if (known || !std::isfinite(value)) wrong_type(node, "a finite number");
  }
  if (error != std::errc() || stop != end) wrong_type(node, expected);
  return value;
}

void check_bounds(double value, const std::string& text, const Constraint& c) {
  bool low = c.open_minimum ? value <= c.minimum : value < c.minimum;
  if (!low && value <= c.maximum) return;
  std::string minimum = bound_text(c.minimum), maximum = bound_text(c.maximum);
  if (std::isfinite(c.minimum) && std::isfinite(c.maximum))
    fail("must be between {} and {}, got {}", minimum, maximum, text);
  if (low)
    fail("must be {} {}, got {}", c.open_minimum ? "greater than" : "at least", minimum, text);
  fail("must be at most {}, got {}", maximum, text);
}

std::string lower_case(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

std::string suggestion(std::string_view word, const std::vector<std::string>& candidates) {
  std::string nearest = nearest_word(lower_case(std::string(word)), candidates);
  return nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest);
}

template <class T>
void read_list(const ConfigNode& node, const Constraint& c, std::vector<T>& value) {
  if (node.kind != Kind::list) wrong_type(node, "a list, e.g. [a, b]");
  for (const ConfigNode& item : node.children) {
    T element{};
    read_value(item, c, element);
    value.push_back(std::move(element));
  }
}

}  // namespace

std::string bound_text(double bound) {
  bool whole = bound == std::floor(bound) && std::fabs(bound) < 1e15;
  return whole ? fmt::format("{}", static_cast<int64_t>(bound)) : fmt::format("{}", bound);
}

const std::string& word_of(const ConfigNode& node, std::string_view expected) {
  if (node.kind != Kind::scalar) wrong_type(node, expected);
  return node.text;
}

void read_value(const ConfigNode& node, const Constraint&, bool& value) {
  bool plain = node.kind == Kind::scalar && !node.quoted;
  value = plain && is_one_of(node.text, {"true", "True", "TRUE"});
  if (value || (plain && is_one_of(node.text, {"false", "False", "FALSE"}))) return;
  std::string word = plain ? lower_case(node.text) : "";
  if (is_one_of(word, {"yes", "on", "y"}))
    fail("expected true or false, got {}: write true", quote(node.text));
  if (is_one_of(word, {"no", "off", "n"}))
    fail("expected true or false, got {}: write false", quote(node.text));
  wrong_type(node, "true or false");
}

void read_value(const ConfigNode& node, const Constraint& c, int64_t& value) {
  value = number_of<int64_t>(node, "an integer");
  check_bounds(static_cast<double>(value), node.text, c);
}

void read_value(const ConfigNode& node, const Constraint& c, double& value) {
  value = number_of<double>(node, "a number");
  check_bounds(value, node.text, c);
}

void read_value(const ConfigNode& node, const Constraint& c, std::string& value) {
  if (c.choices.empty()) {
    if (node.kind != Kind::null) value = word_of(node, c.is_path ? "a path" : "a text");
    if (c.is_path) value = expand_path(value);
    return;  // nothing is the empty text
  }
  std::string expected = fmt::format("one of {}", fmt::join(c.choices, ", "));
  value = word_of(node, expected);
  if (std::find(c.choices.begin(), c.choices.end(), value) == c.choices.end())
    fail("expected {}, got {}{}", expected, quote(value), suggestion(value, c.choices));
}

void read_value(const ConfigNode& node, const Constraint& c, std::vector<int64_t>& value) {
  read_list(node, c, value);
}
void read_value(const ConfigNode& node, const Constraint& c, std::vector<double>& value) {
  read_list(node, c, value);
}
void read_value(const ConfigNode& node, const Constraint& c, std::vector<std::string>& value) {
  read_list(node, c, value);
}

void ConfigProblems::throw_if_any() const {
  if (messages.empty()) return;
  size_t shown = std::min(messages.size(), kMostMessages);
  std::string text = fmt::format("{}", fmt::join(messages.begin(), messages.begin() + shown, "\n"));
  if (shown < messages.size()) text += fmt::format("\nand {} more", messages.size() - shown);
  throw Error(text);
}

const ConfigNode* ConfigReader::take(std::string_view key) {
  keys_.emplace_back(key);
  return map_.find(key);
}

const ConfigNode* ConfigReader::take_section(std::string_view key) {
  const ConfigNode* node = take(key);
  if (!node || node->kind == Kind::null) return nullptr;
  if (node->kind == Kind::map) return node;
  bool option = node->origin.starts_with("--set ");
  std::string form =
      option ? "`{key: value}`" : fmt::format("`{}:` and indented `key: value` lines", key);
  report(*node, fmt::format("expected a mapping of keys ({}), got {}", form, describe(*node)));
  return nullptr;
}

std::string ConfigReader::path_to(std::string_view key) const {
  return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

void ConfigReader::report(const ConfigNode& node, const std::string& message) {
  std::string path = path_to(node.key);
  // "--set a.b=c" and an option of its own (--output) name the key already.
  bool named = node.origin.starts_with("--set ") ? node.origin.starts_with("--set " + path + "=")
                                                 : node.origin.starts_with("--");
  problems_.messages.push_back(named ? fmt::format("{}: {}", node.origin, message)
                                     : fmt::format("{}: {}: {}", node.origin, path, message));
}

void ConfigReader::finish() {
  for (const ConfigNode& child : map_.children) {
    if (std::find(keys_.begin(), keys_.end(), child.key) != keys_.end()) continue;
    std::string hint = suggestion(child.key, keys_);
    if (hint.empty()) {
      // The right key in the wrong section.
      auto elsewhere =
          std::find_if(problems_.key_paths.begin(), problems_.key_paths.end(),
                       [&](const std::string& path) { return path.ends_with("." + child.key); });
      if (elsewhere != problems_.key_paths.end())
        hint = fmt::format("; did you mean '{}'?", *elsewhere);
      else
        hint = fmt::format("; the keys are {}", fmt::join(keys_, ", "));
    }
    std::string where = path_.empty() ? "" : " in " + path_;
    problems_.messages.push_back(
        fmt::format("{}: unknown key {}{}{}", child.origin, quote(child.key), where, hint));
  }
}

}  // namespace adagate
