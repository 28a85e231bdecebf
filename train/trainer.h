// The training of one model from a config: set-up, loop, evaluation, checkpoints.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "data/data_loader.h"
#include "train/calendar.h"
#include "train/checkpoint.h"
#include "train/checkpoint_keeper.h"
#include "train/config/run_config.h"
#include "train/evaluation.h"
#include "train/observer.h"
#include "train/resume.h"
#include "train/run_output.h"
#include "train/task.h"
#include "train/training_step.h"

namespace adagate {

struct TrainerOptions {
  // Text of the effective config, stored with every checkpoint; empty: made from the config.
  std::string config_yaml = {};
  // An output directory that holds checkpoints of another run, or of later steps than the one gone
  // back to, is an error unless they and their metrics may go.
  bool overwrite = false;
  // The files that the config was read from: none of them is written over.
  std::vector<std::filesystem::path> config_files = {};
  // Keys and sections that may differ from those of the run gone on from although they change what
  // is computed.
  std::vector<std::string> allowed_changes = {};
  // State of the caller's, "run/" and a name, that is saved with the run's and filled where the run
  // goes on. On every rank the same names.
  std::vector<StateTensor> states = {};
  // What a step takes, in place of train.batch samples. With batches by tokens epochs differ in
  // steps: train.length and the schedule are laid over the steps of all epochs as they are known,
  // those to come in the shuffle's order or the one that stays, and laid anew at each epoch's
  // start.
  std::optional<BatchRule> batch = {};
  // Makes what is trained on of the windows of data.train; null: these themselves are.
  std::function<std::unique_ptr<Dataset>(const Dataset& windows)> samples = {};
  // In place of the one that the key `task` names: one that is not in the table. Checkpoints say
  // so, and only the same task goes on from them. Must outlive the run.
  const Task* task = nullptr;
};

// The order of the samples in an epoch: a permutation of them, the same on every rank; empty: the
// seeded shuffle's, or that of the data without data.shuffle.
using EpochHook = std::function<std::vector<int64_t>(int64_t epoch)>;

// Everything a run holds. All methods are collective; the same config on every rank, which is
// checked (rank_facts.h).
class Trainer {
 public:
  // Opens the data, builds the model on the mesh, loads the checkpoint that
  // config.checkpoint.resume names. config.model.vocabulary 0 is taken from the tokenizer. Throws
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

  const RunConfig& config() const { return config_; }
  const Mesh& mesh() const { return mesh_; }
  const TrainingState& state() const { return state_; }
  int64_t total_steps() const { return calendar_->total_steps(); }
  // Last step of the output directory's metrics that this run goes on from; -1: it starts them
  // anew.
  int64_t continued_step() const;
  ParameterStore& store() { return *store_; }
  Model& model() { return *model_; }
  const Task& task() const { return task_; }
  std::filesystem::path checkpoint_directory() const;

 private:
  void build_model();
  void plan_steps();
  void load_state();
  void follow_saved_run();
  void begin_stretch();
  void begin_epoch();  // at an epoch's start
  void take_order(int64_t epoch);
  std::vector<StateTensor> states() const;  // what a checkpoint holds
  StepReport one_step();
  TrainingEnd train();
  std::optional<double> run_evaluation();  // the loss; none: it was stopped
  // Evaluates. The run's end, if that ends it.
  std::optional<TrainingEnd> end_by_evaluation();
  void save();

  RunConfig config_;
  TrainerOptions options_;
  const Task& task_;
  Mesh mesh_;
  std::unique_ptr<RunOutput> output_;
  std::unique_ptr<Tokenizer> tokenizer_;
  RunData data_;
  std::unique_ptr<Dataset> samples_;  // trained on in place of data_.train, if so
  std::unique_ptr<DataLoader> loader_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<ParameterStore> store_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<TrainingStep> step_;
  std::unique_ptr<RoutingStep> evaluation_routing_;
  std::optional<Calendar> calendar_;
  std::vector<TrainingObserver*> observers_;
  EpochHook epoch_hook_;
  std::optional<SavedRun> saved_run_;  // gone on from
  std::vector<ConfigChange> changes_;  // since then
  TrainingState state_;
  int64_t start_step_ = 0, saved_step_ = -1;
  bool evaluation_due_ = false;     // at this step; a stop may leave it to the run that goes on
  std::optional<BestMetric> best_;  // of the evaluations so far
  bool save_due_ = false;           // put off while steps are being skipped
  CheckpointKeeper keeper_;
  bool stretch_begun_ = false;
};

}  // namespace adagate
