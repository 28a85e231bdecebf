// Which keys differ between two configurations, and what that means for a run that goes on.
#include <algorithm>
#include <map>

#include "tests/support/catch.h"
#include "train/config/config_changes.h"
#include "train/config/config_writer.h"
#include "train/config/yaml_loader.h"

namespace adagate {
namespace {

RunConfig config_of(const std::vector<std::string>& sets) {
  ConfigTree tree;
  for (const std::string& set : sets) tree.add_override(set);
  return read_config<RunConfig>(tree);
}

std::vector<ConfigChange> changes(const std::vector<std::string>& before,
                                  const std::vector<std::string>& now) {
  return config_changes(config_of(before), config_of(now),
                        {.tokens_per_step = 100, .steps_per_epoch = 7});
}

}  // namespace

TEST_CASE("changes: every key has one role") {
  std::map<std::string, int> listed;
  for (std::string_view key : keys_with_role()) listed[std::string(key)]++;
  for (const FieldInfo& field : list_fields(RunConfig{})) {
    if (field.is_section) continue;
    INFO(field.path() << " belongs into the table of train/config/config_changes.cpp");
    CHECK(listed[field.path()] == 1);
    listed.erase(field.path());
  }
  for (auto& [key, times] : listed) {
    INFO(key << " is a key no more");
    CHECK(times == 0);
  }
  CHECK(role_of("one.yet.to.come") == KeyRole::computation);
}

TEST_CASE("changes: values count, not how they are written") {
  std::vector<std::string> moe = {"moe.experts=4"};
  CHECK(changes({}, {}).empty());
  for (auto [before, now] : {
           std::pair{"train.length=200s", "train.length=20kt"},
           {"train.length=1e", "train.length=7s"},
           {"train.schedule.warmup=150t", "train.schedule.warmup=2s"},
           {"train.optimizer.learning_rate=3.0e-4", "train.optimizer.learning_rate=0.0003"},
           {"model.kv_heads=0", "model.kv_heads=6"},
           {"model.feed_forward=0", "model.feed_forward=1536"},
           {"moe.expert_feed_forward=0", "moe.expert_feed_forward=1536"},
           {"moe.balance.loss=auto", "moe.balance.loss=paper"},
           {"checkpoint.resume=none", "checkpoint.resume=auto"},
       }) {
    CAPTURE(before, now);
    CHECK(changes({moe[0], before}, {moe[0], now}).empty());
    CHECK(changes({moe[0], now}, {moe[0], before}).empty());
  }
  CHECK(changes({"train.length=1e"}, {"train.length=8s"}).size() == 1);
  auto loss = changes({moe[0]}, {moe[0], "moe.balance.loss=switch"});
  REQUIRE(loss.size() == 1);
  CHECK(loss[0].role == KeyRole::computation);
}

TEST_CASE("changes: what differs, in order, with both values") {
  auto found = changes({"moe.experts=4"}, {"moe.experts=4", "moe.gate.threshold=0.2", "output=x",
                                           "seed=2", "train.length=30s"});
  REQUIRE(found.size() == 4);
  CHECK(changes_text(found) ==
        "seed 1 -> 2, output runs/default -> x, moe.gate.threshold 0.1 -> 0.2, "
        "train.length 2000s -> 30s");
  CHECK(found[0].role == KeyRole::identity);
  CHECK(found[1].role == KeyRole::harmless);
  CHECK(found[2].role == KeyRole::computation);
  CHECK(changes_text(with_role(KeyRole::computation, found)) == "moe.gate.threshold 0.1 -> 0.2");
}

TEST_CASE("changes: what a key means may depend on others") {
  auto role = [](std::vector<std::string> common, const std::string& set) {
    std::vector<std::string> now = common;
    now.push_back(set);
    auto found = changes(common, now);
    REQUIRE(found.size() == 1);
    return found[0].role;
  };
  CHECK(role({"moe.experts=4"}, "moe.gate.policy=top1") == KeyRole::computation);
  CHECK(role({}, "moe.gate.policy=top1") == KeyRole::harmless);
  CHECK(role({}, "moe.experts=4") == KeyRole::identity);
  CHECK(role({"moe.experts=4"}, "train.accumulation=2") == KeyRole::harmless);
  CHECK(role({"moe.experts=4", "moe.balance.scope=micro_batch"}, "train.accumulation=2") ==
        KeyRole::computation);
}

TEST_CASE("changes: those that are allowed are named by key or section") {
  AllowedChanges allowed({"moe.gate", "precision", "train.schedule.warmup"});
  for (const char* key :
       {"moe.gate.threshold", "moe.gate.k_max", "precision", "train.schedule.warmup"})
    CHECK(allowed.covers(key));
  for (const char* key :
       {"moe.balance.loss", "moe.experts", "train.schedule.decay", "model.dropout"})
    CHECK_FALSE(allowed.covers(key));
  // The beginning of a word is no section.
  CHECK_FALSE(AllowedChanges({"moe.gate.k"}).covers("moe.gate.k_max"));
  CHECK_THROWS_WITH(AllowedChanges({"moe.gate.treshold"}),
                    "--allow-change moe.gate.treshold: there is no such key or section; did you "
                    "mean 'moe.gate.threshold'?");
  CHECK_THROWS_WITH(AllowedChanges({""}), Catch::Contains("there is no such key"));
  CHECK_THROWS_WITH(AllowedChanges({"moe.gate."}), Catch::Contains("there is no such key"));
  CHECK_THROWS_WITH(AllowedChanges({"train.batch"}), Catch::Contains("start anew"));
}

}  // namespace adagate
