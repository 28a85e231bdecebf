// What stands where a run is about to write: its own inputs, files of the user's, and the results
// of an earlier run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "train/config/run_config.h"

namespace adagate {

struct OutputUse {
  std::filesystem::path output;
  std::string config_yaml;                    // of the run that is to begin
  std::vector<std::filesystem::path> inputs;  // files that it reads
  bool goes_on = false;                       // from a checkpoint in this output
  bool starts_again = false;                  // was to go on, but no checkpoint is there yet
  bool overwrite = false;
};

// The files, but for its configuration, that a run reads.
std::vector<std::filesystem::path> inputs_of(const RunConfig& config);

// Throws Error when the run would write over one of its inputs, compared as files rather than as
// names, or over a file that adagate didn't write; both whatever `overwrite` says.
void check_no_input_goes(const OutputUse& use);

// Throws Error when checkpoints in the output would go that may not: those later than the one, if
// any, that the run goes on from.
void check_no_checkpoint_goes(const OutputUse& use,
                              const std::optional<std::filesystem::path>& from);

// Throws Error when results of an earlier run would go that may not: metrics, and the configuration
// beside them. A run that starts again may replace those that it had before its first checkpoint.
void check_no_result_goes(const OutputUse& use);

// Throws Error when a run of `total_steps` that starts again had come to its end before.
void check_unfinished(const OutputUse& use, int64_t total_steps);

}  // namespace adagate
