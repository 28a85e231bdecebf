#include "train/rank_facts.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "parallel/agree.h"
#include "parallel/rank_names.h"
#include "train/config/config_writer.h"

namespace adagate {
namespace {

constexpr std::string_view kMayDiffer[] = {"output",         "log_level",  "parallel.threads",
                                           "data.tokenizer", "data.train", "data.prefetch",
                                           "train.log_every"};
// Of these it must be the same whether there is one: a path that isn't among the words.
constexpr std::string_view kPaths[] = {"data.validation", "checkpoint.resume",
                                       "checkpoint.initial_weights"};
constexpr std::string_view kWords[] = {"", "none", "auto"};

template <class List>
bool contains(const List& list, std::string_view name) {
  return std::find(std::begin(list), std::end(list), name) != std::end(list);
}

std::string_view unquoted(std::string_view yaml) {
  bool quoted = yaml.size() >= 2 && (yaml.front() == '"' || yaml.front() == '\'');
  return quoted ? yaml.substr(1, yaml.size() - 2) : yaml;
}

// Bits of a group's weights; 0 for none.
uint64_t hash_of(const FlatGroup& group) {
  if (group.size() == 0) return 0;
  const auto* bytes = static_cast<const char*>(group.master.raw());
  return checksum_bytes({bytes, static_cast<size_t>(group.size()) * size_of(group.master.dtype())});
}

}  // namespace

std::vector<RankFact> config_facts(const RunConfig& config) {
  std::vector<RankFact> facts;
  for (const FieldInfo& field : list_fields(config)) {
    std::string name = field.section.empty() ? field.key : field.section + "." + field.key;
    if (field.is_section || contains(kMayDiffer, name)) continue;
    RankFact fact{name, field.value};
    if (contains(kPaths, name)) {
      bool word = contains(kWords, unquoted(field.value));
      fact = {name, word ? std::string(unquoted(field.value)) : "a path", field.value};
    }
    facts.push_back(std::move(fact));
  }
  return facts;
}

std::shared_ptr<Communicator> started_alike(std::shared_ptr<Communicator> world,
                                            const RunConfig& config,
                                            const std::vector<RankFact>& options) {
  std::vector<RankFact> facts = config_facts(config);
  facts.insert(facts.end(), options.begin(), options.end());
  same_on_all_ranks(*world, facts, "start all ranks with the same configuration and options");
  return world;
}

void check_same_file(Communicator& world, const std::string& key,
                     const std::filesystem::path& file) {
  uint64_t hash = 0;
  on_all_ranks(world, [&] { named(key, [&] { hash = checksum_file(file); }); });
  same_on_all_ranks(world, {file_fact(key, file.string(), hash)}, "give all ranks the same file");
}

void check_same_weights(ParameterStore& store, const Mesh& mesh, const std::string& when) {
  Communicator& world = *mesh.world;
  if (world.size() == 1) return;
  struct Hashes {
    uint64_t dense, expert;
  };
  Hashes own{hash_of(store.group(ParameterGroup::dense)),
             hash_of(store.group(ParameterGroup::expert))};
  std::vector<Hashes> all(static_cast<size_t>(world.size()));
  world.all_gather(&own, all.data(), 2, DType::i64);
  for (int r = 0; r < world.size(); ++r) {
    const Hashes &first = all[0], &here = all[static_cast<size_t>(r)];
    int twin = r % mesh.expert_parallel();  // the first rank with the same experts
    bool experts = here.expert == all[static_cast<size_t>(twin)].expert;
    if (here.dense == first.dense && experts) continue;
    int other = experts ? 0 : twin;
    RankNames names(world);
    fail(
        "{} and {} do not have the same weights {} ({:016x} and {:016x}): a host computes "
        "otherwise (another CPU or C library) or has faulty memory; go on from the last "
        "checkpoint without it",
        names.of(other), names.of(r), when,
        experts ? first.dense : all[static_cast<size_t>(twin)].expert,
        experts ? here.dense : here.expert);
  }
}

}  // namespace adagate
