#include "train/config/config_changes.h"

#include <algorithm>
#include <fmt/ranges.h>
#include <span>

#include "core/base/error.h"
#include "train/config/config_tree.h"
#include "train/config/config_writer.h"

namespace adagate {
namespace {

constexpr std::string_view kIdentityKeys[] = {"seed",
                                              "task",
                                              "model.family",
                                              "model.layers",
                                              "model.width",
                                              "model.heads",
                                              "model.kv_heads",
                                              "model.feed_forward",
                                              "model.context",
                                              "model.vocabulary",
                                              "model.positions",
                                              "model.rotary_base",
                                              "model.norm",
                                              "model.norm_epsilon",
                                              "model.activation",
                                              "model.bias",
                                              "model.tie_embeddings",
                                              "moe.experts",
                                              "moe.every",
                                              "moe.expert_feed_forward",
                                              "data.validation_share",
                                              "data.shuffle",
                                              "data.keep_last_batch",
                                              "train.batch"};

constexpr std::string_view kComputationKeys[] = {"precision",
                                                 "model.dropout",
                                                 "model.attention_dropout",
                                                 "moe.gate.policy",
                                                 "moe.gate.k",
                                                 "moe.gate.threshold",
                                                 "moe.gate.normalize",
                                                 "moe.gate.combine",
                                                 "moe.gate.k_max",
                                                 "moe.gate.two_expert_share",
                                                 "moe.balance.loss",
                                                 "moe.balance.coefficient",
                                                 "moe.balance.z_coefficient",
                                                 "moe.balance.scope",
                                                 "data.validation",
                                                 "train.evaluate_samples",
                                                 "train.optimizer.name",
                                                 "train.optimizer.learning_rate",
                                                 "train.optimizer.beta1",
                                                 "train.optimizer.beta2",
                                                 "train.optimizer.epsilon",
                                                 "train.optimizer.weight_decay",
                                                 "train.optimizer.clip_norm",
                                                 "train.schedule.warmup",
                                                 "train.schedule.decay",
                                                 "train.schedule.final_ratio"};

// The texts that data.tokenizer and data.train name are compared by their content.
constexpr std::string_view kHarmlessKeys[] = {"output",
                                              "log_level",
                                              "device",
                                              "model.preset",
                                              "model.initializer_range",
                                              "parallel.expert",
                                              "parallel.threads",
                                              "parallel.timeout",
                                              "parallel.start_timeout",
                                              "data.tokenizer",
                                              "data.train",
                                              "data.prefetch",
                                              "train.length",
                                              "train.accumulation",
                                              "train.activation_checkpointing",
                                              "train.stop_at_loss",
                                              "train.evaluate_every",
                                              "train.log_every",
                                              "train.peak_gflops",
                                              "train.schedule.on_length_change",
                                              "checkpoint.every",
                                              "checkpoint.keep",
                                              "checkpoint.save_at_end",
                                              "checkpoint.initial_weights"};

constexpr std::string_view kStartKeys[] = {"checkpoint.resume"};

struct Keys {
  KeyRole role;
  std::span<const std::string_view> keys;
};
constexpr Keys kRoles[] = {{KeyRole::identity, kIdentityKeys},
                           {KeyRole::computation, kComputationKeys},
                           {KeyRole::harmless, kHarmlessKeys},
                           {KeyRole::start, kStartKeys}};

// The same run with what 0 and `auto` stand for.
RunConfig filled(RunConfig c) {
  c.moe.balance = c.moe.resolved_balance();
  if (c.moe.expert_feed_forward == 0) c.moe.expert_feed_forward = c.model.feed_forward_width();
  c.model.kv_heads = c.model.key_value_heads();
  c.model.feed_forward = c.model.feed_forward_width();
  return c;
}

bool same_value(const FieldInfo& a, const FieldInfo& b, const StepSizes& sizes) {
  if (a.value == b.value) return true;
  if (a.type != type_name(Duration{})) return false;
  return Duration::parse(a.value).steps(sizes) == Duration::parse(b.value).steps(sizes);
}

// Where a key's meaning depends on others.
KeyRole role_in(const RunConfig& before, const RunConfig& now, const std::string& key) {
  bool dense = before.moe.experts == 0 && now.moe.experts == 0;
  if (dense && key.starts_with("moe.")) return KeyRole::harmless;
  // Balance losses of each part of the batch change with the parts.
  bool parts = now.moe.experts > 0 && now.moe.balance.scope == "micro_batch";
  if (parts && key == "train.accumulation") return KeyRole::computation;
  return role_of(key);
}

}  // namespace

KeyRole role_of(std::string_view key) {
  for (const Keys& row : kRoles)
    if (std::find(row.keys.begin(), row.keys.end(), key) != row.keys.end()) return row.role;
  return KeyRole::computation;
}

std::vector<std::string_view> keys_with_role() {
  std::vector<std::string_view> all;
  for (const Keys& row : kRoles) all.insert(all.end(), row.keys.begin(), row.keys.end());
  return all;
}

std::vector<ConfigChange> config_changes(const RunConfig& before, const RunConfig& now,
                                         const StepSizes& sizes) {
  auto then = list_fields(before), these = list_fields(now);
  auto then_filled = list_fields(filled(before)), these_filled = list_fields(filled(now));
  std::vector<ConfigChange> changes;
  for (size_t i = 0; i < these.size(); ++i) {
    if (these[i].is_section) continue;
    if (same_value(then[i], these[i], sizes)) continue;
    if (same_value(then_filled[i], these_filled[i], sizes)) continue;
    std::string key = these[i].path();
    KeyRole role = role_in(before, now, key);
    if (role != KeyRole::start) changes.push_back({key, then[i].value, these[i].value, role});
  }
  return changes;
}

std::vector<ConfigChange> with_role(KeyRole role, std::vector<ConfigChange> changes) {
  std::erase_if(changes, [&](const ConfigChange& change) { return change.role != role; });
  return changes;
}

std::string changes_text(const std::vector<ConfigChange>& changes) {
  std::vector<std::string> texts;
  for (const ConfigChange& c : changes)
    texts.push_back(fmt::format("{} {} -> {}", c.key, c.before, c.now));
  return fmt::format("{}", fmt::join(texts, ", "));
}

AllowedChanges::AllowedChanges(std::vector<std::string> words) : words_(std::move(words)) {
  std::vector<std::string> known;
  for (const FieldInfo& field : list_fields(RunConfig{})) known.push_back(field.path());
  for (const std::string& word : words_) {
    if (std::find(known.begin(), known.end(), word) == known.end()) {
      std::string nearest = nearest_word(word, known);
      fail("--allow-change {}: there is no such key or section{}", word,
           nearest.empty() ? "; docs/configuration.md lists them"
                           : fmt::format("; did you mean '{}'?", nearest));
    }
    check(role_of(word) != KeyRole::identity,
          "--allow-change {}: a run that goes on can't have another {}; start anew in another "
          "--output",
          word, word);
  }
}

bool AllowedChanges::covers(std::string_view key) const {
  return std::any_of(words_.begin(), words_.end(), [&](const std::string& word) {
    return key == word || (key.starts_with(word) && key[word.size()] == '.');
  });
}

}  // namespace adagate
