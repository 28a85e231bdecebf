// What a run is made of, and how that comes from its configuration.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "core/nn/parameter_store.h"
#include "core/optim/adamw.h"
#include "data/data_loader.h"
#include "parallel/rank_device.h"
#include "train/resume.h"
#include "train/run_output.h"
#include "train/trainer_options.h"
#include "train/training_step.h"

namespace adagate {

// Later parts look at earlier ones: a run stays where it was built.
struct Run {
  // Checks that the ranks agree, opens tokenizer and data, makes the model on the mesh and fills it
  // with new weights, given ones, or those of the checkpoint that config.checkpoint.resume names;
  // the data then stands where that run stopped. What lies in the output stays until it is claimed.
  // Collective. Throws Error.
  Run(RunConfig config, TrainerOptions options, std::shared_ptr<Communicator> world);
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // All that a checkpoint holds but for the order of the samples.
  std::vector<StateTensor> states() const;
  std::filesystem::path checkpoints() const;
  bool first_rank() const { return mesh.world->rank() == 0; }

  RunConfig config;  // the vocabulary filled in
  TrainerOptions options;
  const Task& task;
  RankDevice place;
  Mesh mesh;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<RunOutput> output;
  std::unique_ptr<Model> model;
  std::unique_ptr<ParameterStore> store;
  std::unique_ptr<AdamW> optimizer;
  std::unique_ptr<TrainingStep> step;
  std::optional<SavedRun> saved;  // gone on from
  RunData data;
  std::unique_ptr<Dataset> samples;  // trained on in place of data.train, if so
  std::unique_ptr<DataLoader> loader;

 private:
  void check_options() const;
  void open_tokenizer();
  void make_model();
  void fill_weights();
  void make_step();
  void open_data();
};

}  // namespace adagate
