// Two configurations of one run side by side: which keys differ, and what that means for a run that
// goes on from a checkpoint.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "train/config/run_config.h"

namespace adagate {

// What it means that a key differs from the saved run's. Every key of RunConfig is listed under one
// of these in config_changes.cpp.
enum class KeyRole {
  identity,     // the saved weights or positions have no meaning under another value
  computation,  // what follows is computed otherwise
  harmless,     // how, where and how long; the steps are the same, to round-off
  start,        // of this start of the program alone: not compared
};

// A key that is listed nowhere is taken for `computation`.
KeyRole role_of(std::string_view key);

// Every listed key, "moe.gate.threshold".
std::vector<std::string_view> keys_with_role();

struct ConfigChange {
  std::string key;
  std::string before, now;  // as YAML
  KeyRole role = KeyRole::computation;
};

// The keys that differ, in the order of the configuration. Values count, not how they are written:
// durations of the same number of steps are equal, and so are a value and the 0 or `auto` that
// stands for it. `sizes` are those of `now`.
std::vector<ConfigChange> config_changes(const RunConfig& before, const RunConfig& now,
                                         const StepSizes& sizes);

std::vector<ConfigChange> with_role(KeyRole role, std::vector<ConfigChange> changes);

// "moe.gate.threshold 0.1 -> 0.2, data.prefetch 2 -> 4"
std::string changes_text(const std::vector<ConfigChange>& changes);

// Keys and sections that a user has named as free to differ.
class AllowedChanges {
 public:
  AllowedChanges() = default;
  // Throws Error on a word that is neither a key nor a section, with the nearest one, and on a key
  // that can never differ.
  explicit AllowedChanges(std::vector<std::string> words);
  bool covers(std::string_view key) const;

 private:
  std::vector<std::string> words_;
};

}  // namespace adagate
