// What adagate writes below a run's output directory, by exact name, and the one place that removes
// any of it: files under these names, then their directory if it is empty. A symbolic link is
// unlinked, never followed. Everything else is the user's and stays, with the directory it is in.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace adagate {

constexpr const char* kManifestFile = "manifest.json";
constexpr const char* kMetricsFile = "metrics.jsonl";
constexpr const char* kConfigFile = "config.yaml";

std::string step_name(int64_t step);          // "step-00000100": a checkpoint
std::string half_written_name(int64_t step);  // ".step-00000100.tmp": one that is being written
std::string shard_name(int64_t shard, int64_t shards);

// Step of a name that step_name() gives; nothing for any other, "step-00000100-best" among them.
std::optional<int64_t> step_in(const std::string& name);

// Steps and paths of the complete checkpoints below `directory`, lowest step first. A link to a
// checkpoint is one too.
std::vector<std::pair<int64_t, std::filesystem::path>> complete_checkpoints(
    const std::filesystem::path& directory);

// The complete checkpoint with the highest step below `directory`; `before`: only steps below it.
std::optional<std::filesystem::path> find_latest(const std::filesystem::path& directory,
                                                 int64_t before = INT64_MAX);

// Those of them that are not on the way to a run that begins at `from`: those of later steps; all
// when there is no `from` or it is elsewhere.
std::vector<std::filesystem::path> later_checkpoints(
    const std::filesystem::path& directory, const std::optional<std::filesystem::path>& from);

// The manifest goes first, without which a directory is no checkpoint: a kill in between leaves no
// half one.
void remove_checkpoint(const std::filesystem::path& path);

// Removes what killed runs have left below `directory`: half-written and half-removed checkpoints
// that hold nothing else.
void clean_checkpoints(const std::filesystem::path& directory);

// Removes the complete checkpoints below `directory` but for the newest `keep` (0: none) and
// `saved`.
void rotate_checkpoints(const std::filesystem::path& directory, int64_t keep,
                        const std::filesystem::path& saved);

// Throws Error when `directory` is a symbolic link, or when something that is none of adagate's
// checkpoints has the name that one of the steps [first, last] would get.
void check_checkpoint_names(const std::filesystem::path& directory, int64_t first,
                            int64_t last = INT64_MAX);

// Removes what killed processes have left of half-written files directly below a run's output and
// in its cache. No run must be writing there.
void clean_temporaries(const std::filesystem::path& output);

// Removes files and directories that this process has made, the last one first; directories only
// while they are empty.
void take_back(const std::vector<std::filesystem::path>& made);

// The empty directory below `directory` in which the checkpoint of `step` is written. Throws Error.
std::filesystem::path make_half_written(const std::filesystem::path& directory, int64_t step);

// Puts the checkpoint `half_written` in the place of `path` in one atomic step, also when `path`
// exists; what the user keeps in it is then in the new one. Throws Error.
void put_in_place(const std::filesystem::path& half_written, const std::filesystem::path& path);

}  // namespace adagate
