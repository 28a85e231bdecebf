#include "train/rank_facts.h"

#include <algorithm>
#include <array>
#include <map>
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

uint64_t hash_of(const Tensor& x) {
  Tensor host = x.to(Device{});
  return checksum_bytes({static_cast<const char*>(host.raw()), host.bytes()});
}

// Bits of a group's weights; 0 for none.
uint64_t hash_of(const FlatGroup& group) {
  if (group.size() == 0) return 0;
  return hash_of(group.master);
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
  struct Held {
    uint64_t hash = 0;
    int64_t first = 0;  // lowest rank of the world that holds a copy
  };
  static_assert(sizeof(Held) == 2 * sizeof(int64_t));
  PerGroup<Held> own;
  for (ParameterGroup g : kAllGroups) {
    own[g] = {hash_of(store.group(g)), world.rank()};
    mesh.group(g).copies->broadcast(&own[g].first, 1, DType::i64, 0);
  }
  std::vector<PerGroup<Held>> all(static_cast<size_t>(world.size()));
  world.all_gather(&own, all.data(), 2 * kParameterGroups, DType::i64);
  for (int r = 0; r < world.size(); ++r) {
    for (ParameterGroup g : kAllGroups) {
      const Held& here = all[static_cast<size_t>(r)][g];
      const Held& first = all[static_cast<size_t>(here.first)][g];
      if (here.hash == first.hash) continue;
      RankNames names(world);
      fail(
          "{} and {} do not have the same weights {} ({}: {:016x} and {:016x}): a host computes "
          "otherwise (another CPU or C library) or has faulty memory; go on from the last "
          "checkpoint without it",
          names.of(static_cast<int>(here.first)), names.of(r), when, name_of(g), first.hash,
          here.hash);
    }
  }
}

void check_same_states(const std::vector<StateTensor>& states, const Mesh& mesh,
                       const std::string& when) {
  Communicator& world = *mesh.world;
  if (world.size() == 1) return;
  struct Part {
    int64_t begin, count;
    uint64_t hash;
  };
  std::vector<const StateTensor*> compared;
  std::vector<RankFact> facts;
  std::vector<Part> own, all;
  for (const StateTensor& state : states) {
    if (kind_of(state.name) == "value" || kind_of(state.name).starts_with("adam")) continue;
    compared.push_back(&state);
    facts.push_back({state.name, state.shape.str()});
    own.push_back({state.shard.begin, state.count(), hash_of(state.tensor)});
  }
  same_on_all_ranks(world, facts, "all ranks of a run have the same state");
  all.resize(own.size() * static_cast<size_t>(world.size()));
  world.all_gather(own.data(), all.data(), static_cast<int64_t>(3 * own.size()), DType::i64);
  for (size_t i = 0; i < compared.size(); ++i) {
    std::map<std::pair<int64_t, int64_t>, int> holders;  // of each part, the first rank
    for (int r = 0; r < world.size(); ++r) {
      auto part_of = [&](int rank) { return all[static_cast<size_t>(rank) * own.size() + i]; };
      Part part = part_of(r);
      int twin = holders.emplace(std::pair(part.begin, part.count), r).first->second;
      if (part.hash == part_of(twin).hash) continue;
      RankNames names(world);
      fail("{} and {} do not have the same {} {}: go on from the last checkpoint", names.of(twin),
           names.of(r), compared[i]->name, when);
    }
  }
}

}  // namespace adagate
