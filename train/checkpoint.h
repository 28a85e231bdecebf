// Checkpoints: a directory per step with a manifest and one safetensors shard per rank. State is
// stored by global name in the parts that the ranks have, so that any number of ranks and any
// expert parallelism can read it back.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "core/nn/state.h"
#include "parallel/mesh.h"
#include "train/manifest.h"
#include "train/run_directory.h"

namespace adagate {

// Saves to `directory`/step-00000100 and removes all but the newest `keep` (0: keeps all). Every
// rank names the same states, each with the part that it has; of equal parts one is written.
// Collective over mesh.world. The checkpoint appears whole or not at all; on an error all ranks
// throw the same Error, what was there before is intact, nothing partial is left. Returns the new
// path.
std::filesystem::path save_checkpoint(const std::filesystem::path& directory,
                                      const std::vector<StateTensor>& states,
                                      const TrainingState& state, const std::string& config_yaml,
                                      const Mesh& mesh, int64_t keep);

// Throws Error when `path` is no checkpoint, naming what is wrong and, if there is one, the
// complete checkpoint before it.
Manifest read_manifest(const std::filesystem::path& path);

// Fills `states` and verifies every shard's checksum; collective, with the errors of read_manifest.
// Everything asked for must be stored in the same type and global shape, and everything stored must
// be asked for: of `kinds` (kind_of), or of any kind where none is named.
Manifest load_checkpoint(const std::filesystem::path& path, const std::vector<StateTensor>& states,
                         const Mesh& mesh, std::span<const std::string_view> kinds = {});

}  // namespace adagate
