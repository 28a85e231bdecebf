// What the ranks of a run must have alike, and what may be another on every host.
//
// Keys of a configuration are compared by value. Of files the content counts, not the path: data,
// tokenizer, initial weights and the checkpoint gone on from are compared by hash where they are
// opened; output is looked for by every rank (shared_output.h). log_level, parallel.threads,
// data.prefetch and train.log_every change no number and may differ.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/nn/parameter_store.h"
#include "parallel/mesh.h"
#include "parallel/same_on_all_ranks.h"
#include "train/config/run_config.h"

namespace adagate {

// The keys that decide what is computed, in their order.
std::vector<RankFact> config_facts(const RunConfig& config);

// `world`, once it is known that all its ranks have the same configuration and options. Collective.
std::shared_ptr<Communicator> started_alike(std::shared_ptr<Communicator> world,
                                            const RunConfig& config,
                                            const std::vector<RankFact>& options);

// The file has the same content on all ranks; `key` names it. Collective.
void check_same_file(Communicator& world, const std::string& key,
                     const std::filesystem::path& file);

// Collective. Throws the same Error on every rank when copies of a weight are not the same bits:
// dense ones on all ranks, experts on those that hold the same ones. `when` says which weights:
// "at the start", "after step 100".
void check_same_weights(ParameterStore& store, const Mesh& mesh, const std::string& when);

// The same of state that is no parameter and no moment of one: equal parts of it are the same bits
// on all ranks that have them. Collective.
void check_same_states(const std::vector<StateTensor>& states, const Mesh& mesh,
                       const std::string& when);

}  // namespace adagate
