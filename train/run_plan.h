// What a run would read, take and write, found out before it is started and without writing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "parallel/machine_limits.h"
#include "train/config/run_config.h"
#include "train/plan_report.h"
#include "train/task_data.h"

namespace adagate {

struct PlanOptions {
  int ranks = 1, local_ranks = 1;  // in all; on this host
  std::string config_yaml;         // the configuration as it would be written
  std::vector<std::filesystem::path> config_files;
  bool overwrite = false;
};

struct RunPlan {
  RunConfig config;  // with the vocabulary filled in
  int ranks = 1;
  std::string tokenizer;
  DataPlan data;
  int64_t steps_per_epoch = -1, steps = -1;  // -1: not known; of the whole run
  std::string resumes_from;                  // a checkpoint; empty: starts anew
  MemoryEstimate memory;
  MemoryBudget memory_budget;    // of one rank
  double checkpoint_bytes = 0;   // one
  double checkpoints_bytes = 0;  // all that are on the disk at one time
  double disk_free = -1;         // where output is; -1: not known
};

// Checks the tokenizer, the data, the checkpoint or weights to start from, the output directory and
// whether the memory of this machine and its disk hold the run. Throws Error naming the key.
// Nothing is written.
RunPlan plan_run(RunConfig config, const PlanOptions& options);

// The report of plan_report() and, line by line, what is read and what is written where.
std::string text_of(const RunPlan& plan);

// The same as an object, whose fields docs/commands.md describes.
nlohmann::ordered_json json_of(const RunPlan& plan);

}  // namespace adagate
