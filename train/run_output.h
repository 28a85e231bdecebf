// The output directory of one run: the checkpoint that it goes on from, and what may go of what
// lies there.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "parallel/communicator.h"
#include "train/config/run_config.h"
#include "train/earlier_run.h"
#include "train/new_output.h"

namespace adagate {

class RunOutput {
 public:
  struct Options {
    std::string config_yaml;                          // as it is saved with the run
    std::vector<std::filesystem::path> config_files;  // that the configuration was read from
    bool overwrite = false;
  };

  // Makes and locks the directory, finds what config.checkpoint.resume names, and throws Error
  // where the run would write over what it may not. What was made is taken back unless the output
  // is claimed. Collective. `config` and `world` must outlive this.
  RunOutput(const RunConfig& config, Options options, Communicator& world);

  // The last of a run's preparations, so that one which can't start changes nothing: checkpoints of
  // later steps than the one gone on from go, and what a killed run has left. Throws Error where
  // the run had come to its end. Collective.
  void claim(int64_t total_steps);

  // From a run's first step on the directory tells of its configuration: keeps that, and the
  // tokenizer. `earlier`: the configuration of the steps up to `start`, where it was another one.
  // Collective.
  void begin(const Tokenizer& tokenizer, int64_t start, const std::string& earlier);

  const std::optional<std::filesystem::path>& resumed_from() const { return resumed_from_; }
  bool goes_on_here() const;  // from a checkpoint in this output
  std::filesystem::path checkpoints() const;
  std::filesystem::path cache() const { return directory_.path() / "cache"; }
  // To take back, in the order in which they were made.
  std::vector<std::filesystem::path>& made() { return directory_.made(); }

 private:
  std::optional<std::filesystem::path> find_checkpoint() const;
  void check_use() const;
  OutputUse use() const;

  const RunConfig& config_;
  Options options_;
  Communicator& world_;
  NewOutput directory_;
  std::unique_ptr<DirectoryLock> lock_;  // once claimed
  std::optional<std::filesystem::path> resumed_from_;
};

}  // namespace adagate
