#include "train/run.h"

#include <fmt/ranges.h>

#include "core/device/allocator.h"
#include "models/weights.h"
#include "parallel/agree.h"
#include "train/config/config_writer.h"
#include "train/memory_check.h"
#include "train/rank_facts.h"
#include "train/run_restore.h"
#include "train/run_state.h"
#include "train/task_table.h"

namespace adagate {
namespace {

std::vector<RankFact> facts_of(const TrainerOptions& options) {
  return {{"--overwrite", options.overwrite ? "given" : "not given"},
          {"--allow-change", fmt::format("{}", fmt::join(options.allowed_changes, ","))},
          {"the task", std::string(options.task ? options.task->name : "that of the key task")},
          {"the batch rule", options.batch ? text_of(*options.batch) : "train.batch"}};
}

}  // namespace

// What costs little comes first: a run that can't start says so before its text is tokenized.
Run::Run(RunConfig given, TrainerOptions given_options, std::shared_ptr<Communicator> world)
    : config(std::move(given)),
      options(std::move(given_options)),
      task(options.task ? *options.task : task_named(config.task)),
      place(choose_rank_device(config.device,
                               started_alike(std::move(world), config, facts_of(options)))),
      mesh(make_mesh(place.world, static_cast<int>(config.parallel.expert))) {
  if (options.config_yaml.empty()) options.config_yaml = write_yaml(config);
  check_options();
  open_tokenizer();
  check_memory_of_ranks(*mesh.world, config, task, place.device);
  output = std::make_unique<RunOutput>(
      config, RunOutput::Options{options.config_yaml, options.config_files, options.overwrite},
      *mesh.world);
  make_model();
  fill_weights();
  make_step();
  if (output->resumed_from()) saved = restore_states(*output->resumed_from(), *this);
  check_same_weights(*store, mesh, "at the start");
  open_data();
  if (saved)
    on_all_ranks(*mesh.world, [&] { restore_position(*saved, config, data.train_hash, *loader); });
}

std::filesystem::path Run::checkpoints() const {
  return std::filesystem::path(config.output) / "checkpoints";
}

std::vector<StateTensor> Run::states() const {
  std::vector<StateTensor> states = model_states(*store, *model);
  for (StateTensor& moment : optimizer->states()) states.push_back(std::move(moment));
  states.insert(states.end(), options.states.begin(), options.states.end());
  return states;
}

void Run::check_options() const {
  for (const StateTensor& state : options.states)
    check(kind_of(state.name) == "run", "the caller's state {} must be called run/...", state.name);
}

void Run::open_tokenizer() {
  on_all_ranks(*mesh.world, [&] {
    tokenizer = named("data.tokenizer", [&] { return load_tokenizer(config.data.tokenizer); });
    check_vocabulary(config, *tokenizer);
  });
  same_on_all_ranks(*mesh.world,
                    {file_fact("data.tokenizer", config.data.tokenizer, tokenizer->hash())},
                    "give all ranks the same tokenizer");
}

void Run::make_model() {
  model = task.make_model(config, mesh);
  StoreOptions storage{.compute = config.precision == "bf16" ? DType::bf16 : DType::f32,
                       .device = place.device};
  storage.allocate_grad = [this](ParameterGroup group, size_t bytes) {
    return mesh.group(group).copies->on(place.device, "gradients").allocate(bytes);
  };
  store = std::make_unique<ParameterStore>(*model, storage);
}

void Run::fill_weights() {
  const std::string& file = config.checkpoint.initial_weights;
  if (file.empty()) return store->initialize(static_cast<uint64_t>(config.seed));
  check_same_file(*mesh.world, "checkpoint.initial_weights", file);
  on_all_ranks(*mesh.world, [&] {
    named("checkpoint.initial_weights", [&] { load_weights(file, store->parameters()); });
    store->refresh_compute();
  });
  trim_allocator();  // reading took blocks that no step asks for
}

void Run::make_step() {
  optimizer = std::make_unique<AdamW>(*store, config.train.optimizer);
  step = std::make_unique<TrainingStep>(
      *model, task.objective, *store, *optimizer, mesh,
      TrainingStepOptions{.seed = static_cast<uint64_t>(config.seed),
                          .clip_norm = config.train.optimizer.clip_norm,
                          .recompute_blocks = config.train.activation_checkpointing == "block"});
}

void Run::open_data() {
  data = task.data.open(config, *tokenizer, {.folder = output->cache(), .made = &output->made()},
                        *mesh.world);
  if (options.samples) samples = options.samples(*data.train);
  SamplerConfig sampler = sampler_config(config);
  if (options.batch) sampler.batch = *options.batch;
  loader =
      std::make_unique<DataLoader>(samples ? *samples : *data.train, sampler, mesh.world->rank(),
                                   mesh.world->size(), static_cast<int>(config.data.prefetch));
}

}  // namespace adagate
