// The training of one model from a config: a loop over steps, with evaluations and checkpoints.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "train/calendar.h"
#include "train/epoch_order.h"
#include "train/observer.h"
#include "train/run.h"
#include "train/run_progress.h"
#include "train/run_saver.h"
#include "train/validation.h"

namespace adagate {

// All methods are collective; the same config on every rank, which is checked (rank_facts.h).
class Trainer {
 public:
  // Builds the run (train/run.h). config.model.vocabulary 0 is taken from the tokenizer. Throws
  // Error.
  Trainer(RunConfig config, TrainerOptions options, std::shared_ptr<Communicator> world);
  ~Trainer();

  // Observers are told on this rank only; they must outlive the run.
  void observe(TrainingObserver& observer) { observers_.push_back(&observer); }

  // `hook` is asked on all ranks, and may communicate, before the first step of every epoch; not
  // again for an epoch that is gone on with in its middle, whose order the checkpoint holds.
  // Without a hook the order stays.
  void at_epoch_start(EpochHook hook) { epoch_hook_ = std::move(hook); }

  // Trains until train.length, train.stop_at_loss, or a signal to stop, which saves first.
  TrainingEnd run();

  const RunConfig& config() const { return run_.config; }
  const Task& task() const { return run_.task; }
  const Mesh& mesh() const { return run_.mesh; }
  const TrainingState& state() const { return progress_.state; }
  int64_t total_steps() const { return calendar_.total_steps(); }
  // Last step of the output directory's metrics that this run goes on from; -1: it starts them
  // anew.
  int64_t continued_step() const;
  ParameterStore& store() { return *run_.store; }
  Model& model() { return *run_.model; }
  std::filesystem::path checkpoint_directory() const { return run_.checkpoints(); }

 private:
  TrainingEnd train();
  void begin_epoch();  // at an epoch's start
  void begin_stretch();
  // Evaluates. The run's end, if that ends it.
  std::optional<TrainingEnd> evaluate();
  void save();

  Run run_;
  Calendar calendar_;
  RunProgress progress_;
  RunSaver saver_;
  Validation validation_;
  std::vector<TrainingObserver*> observers_;
  EpochHook epoch_hook_;
  std::vector<ConfigChange> changes_;  // since the run that this one goes on from
  int64_t start_step_;
};

}  // namespace adagate
