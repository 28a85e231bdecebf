// Fixtures under tests/reference/fixtures: tensors and a JSON description side by side. What they
// hold is told in tests/reference/README.md.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "core/base/fields.h"
#include "core/io/safetensors.h"
#include "core/nn/parameter.h"
#include "tests/support/test_paths.h"

namespace adagate::test {

// ADAGATE_FIXTURES names another folder, with fixtures of other models (sweep.py).
inline std::filesystem::path fixtures_folder() {
  if (const char* other = std::getenv("ADAGATE_FIXTURES")) return other;
  return source_path("tests/reference/fixtures");
}

// Names of the fixtures in a folder of fixtures_folder() that a test can read, sorted: those with
// a description and tensors.
inline std::vector<std::string> fixture_names(const std::filesystem::path& folder = "") {
  std::vector<std::string> names;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(fixtures_folder() / folder, none)) {
    std::filesystem::path tensors = entry.path(), name = folder / entry.path().stem();
    tensors.replace_extension(".safetensors");
    if (entry.path().extension() == ".json" && std::filesystem::exists(tensors))
      names.push_back(name.string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// The decoders among them: each has a batch, a padded batch (NAME_padded) and a training run.
inline std::vector<std::string> decoder_fixtures() {
  std::vector<std::string> names = fixture_names();
  std::erase_if(names, [](const std::string& name) { return name.ends_with("_padded"); });
  return names;
}

// Fills a config struct from JSON through its visit; a key that the struct does not know is an
// Error, so that a renamed field cannot leave a fixture's setting unread.
class JsonConfigReader {
 public:
  JsonConfigReader(const nlohmann::json& json, std::string where)
      : json_(json), where_(std::move(where)) {}

  template <class T>
  void field(std::string_view key, T& value, std::string_view, const Constraint& = {}) {
    if (!take(key)) return;
    if constexpr (WordField<T>)
      value = T::parse(json_.at(std::string(key)).get<std::string>());
    else
      value = json_.at(std::string(key)).get<T>();
  }

  template <class S>
  void section(std::string_view key, S& value, std::string_view) {
    if (!take(key)) return;
    JsonConfigReader inner(json_.at(std::string(key)), where_ + "." + std::string(key));
    S::visit(inner, value);
    inner.finish();
  }

  void finish() const {
    for (const auto& [key, value] : json_.items())
      check(read_.count(key) > 0, "{} has the key '{}', which the config does not", where_, key);
  }

 private:
  bool take(std::string_view key) {
    read_.insert(std::string(key));
    return json_.contains(std::string(key));
  }

  const nlohmann::json& json_;
  std::string where_;
  std::set<std::string> read_;
};

class ReferenceFixture {
 public:
  // `name` relative to the fixtures' folder, without extension, e.g. "moe/top1_raw".
  explicit ReferenceFixture(const std::string& name)
      : tensors_(fixtures_folder() / (name + ".safetensors")) {
    std::filesystem::path path = fixtures_folder() / (name + ".json");
    std::ifstream file(path);
    check(file.good(), "{} cannot be read", path.string());
    json_ = nlohmann::json::parse(file);
  }

  const SafetensorsFile& tensors() const { return tensors_; }
  bool contains(const std::string& name) const { return tensors_.contains(name); }
  Tensor tensor(const std::string& name) const { return tensors_.read(name); }
  const nlohmann::json& json() const { return json_; }

  // The struct's defaults with what the fixture says, e.g. config<ModelConfig>("model").
  template <class C>
  C config(const std::string& section) const {
    C result;
    JsonConfigReader reader(json_.at("config").at(section), section);
    C::visit(reader, result);
    reader.finish();
    return result;
  }

  // This rank's part of the weights of `p`, in the master's type.
  void set_weight(const Parameter& p) const {
    p.master().copy_from(p.spec().part_of(tensor("weights/" + p.name())));
  }

 private:
  SafetensorsFile tensors_;
  nlohmann::json json_;
};

// |a - b| / |b| in the L2 norm, over the whole tensor; |a| where b is zero.
inline double norm_error(const Tensor& actual, const Tensor& expected) {
  check(actual.numel() == expected.numel(), "{} elements, expected {}", actual.numel(),
        expected.numel());
  std::vector<double> a = actual.to_doubles(), b = expected.to_doubles();
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return size > 0 ? std::sqrt(difference / size) : std::sqrt(difference);
}

inline double largest_difference(const Tensor& actual, const Tensor& expected) {
  check(actual.numel() == expected.numel(), "{} elements, expected {}", actual.numel(),
        expected.numel());
  std::vector<double> a = actual.to_doubles(), b = expected.to_doubles();
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    double d = std::abs(a[i] - b[i]);
    if (!(d <= largest)) largest = d;  // NaN sticks
  }
  return largest;
}

}  // namespace adagate::test
