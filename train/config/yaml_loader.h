// Reads and writes any config struct by its visit (core/base/fields.h).
//
//   ConfigTree tree;
//   tree.add_file("configs/quickstart.yaml");
//   tree.add_override("train.batch=16");
//   auto config = read_config<RunConfig>(tree);
//
// Every message names the place and the key:
//   configs/x.yaml:12: unknown key 'treshold' in moe.gate; did you mean 'threshold'?
//   --set train.batch=no: expected an integer, got 'no'
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/fields.h"
#include "train/config/config_tree.h"

namespace adagate {

// Converts what is written; throws Error saying what was expected and what was found, without
// place.
void read_value(const ConfigNode& node, const Constraint& constraint, bool& value);
void read_value(const ConfigNode& node, const Constraint& constraint, int64_t& value);
void read_value(const ConfigNode& node, const Constraint& constraint, double& value);
void read_value(const ConfigNode& node, const Constraint& constraint, std::string& value);
void read_value(const ConfigNode& node, const Constraint& constraint, std::vector<int64_t>& value);
void read_value(const ConfigNode& node, const Constraint& constraint, std::vector<double>& value);
void read_value(const ConfigNode& node, const Constraint& constraint,
                std::vector<std::string>& value);
const std::string& word_of(const ConfigNode& node, std::string_view expected);
template <WordField T>
void read_value(const ConfigNode& node, const Constraint&, T& value) {
  value = T::parse(word_of(node, "a word"));
}

// A bound of a Constraint as the user knows it: 1000000 rather than 1e+06.
std::string bound_text(double bound);

// What all readers of one tree share.
struct ConfigProblems {
  std::vector<std::string> key_paths;  // every key there is, "moe.gate.k"
  std::vector<std::string> messages;

  // Throws one Error with all messages, if any.
  void throw_if_any() const;
};

// Visits a struct, collecting the paths of its fields.
class KeyCollector {
 public:
  KeyCollector(std::string prefix, std::vector<std::string>& paths)
      : prefix_(std::move(prefix)), paths_(paths) {}
  template <class T>
  void field(std::string_view key, const T&, std::string_view, const Constraint& = {}) {
    paths_.push_back(prefix_ + std::string(key));
  }
  template <class S>
  void section(std::string_view key, const S& value, std::string_view) {
    KeyCollector inner(prefix_ + std::string(key) + ".", paths_);
    S::visit(inner, value);
  }

 private:
  std::string prefix_;
  std::vector<std::string>& paths_;
};

// Visits a struct, filling in the values that one mapping holds.
class ConfigReader {
 public:
  ConfigReader(const ConfigNode& map, std::string path, ConfigProblems& problems)
      : map_(map), path_(std::move(path)), problems_(problems) {}

  template <class T>
  void field(std::string_view key, T& value, std::string_view, const Constraint& constraint = {}) {
    const ConfigNode* node = take(key);
    if (!node) return;
    try {
      T read{};
      read_value(*node, constraint, read);
      value = std::move(read);
    } catch (const Error& error) {
      report(*node, error.what());
    }
  }
  template <class S>
  void section(std::string_view key, S& value, std::string_view) {
    const ConfigNode* node = take_section(key);
    if (!node) return;
    ConfigReader inner(*node, path_to(key), problems_);
    S::visit(inner, value);
    inner.finish();
  }
  template <class S>
  void preset(S& value) {
    if (map_.find("preset")) value.apply_preset();
  }
  // Reports the keys that no field took.
  void finish();

 private:
  const ConfigNode* take(std::string_view key);
  const ConfigNode* take_section(std::string_view key);
  std::string path_to(std::string_view key) const;
  void report(const ConfigNode& node, const std::string& message);

  const ConfigNode& map_;
  std::string path_;
  ConfigProblems& problems_;
  std::vector<std::string> keys_;  // seen in the visit
};

// Fills in what the tree sets; the rest of `config` stays. Throws one Error listing every problem,
// and leaves `config` partly changed then.
template <class S>
void read_config(const ConfigTree& tree, S& config) {
  ConfigProblems problems;
  KeyCollector collector("", problems.key_paths);
  S::visit(collector, std::as_const(config));
  ConfigReader reader(tree.root(), "", problems);
  S::visit(reader, config);
  reader.finish();
  problems.throw_if_any();
}
template <class S>
S read_config(const ConfigTree& tree) {
  S config;
  read_config(tree, config);
  return config;
}

}  // namespace adagate
