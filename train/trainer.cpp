#include "train/trainer.h"

#include <algorithm>
#include <csignal>
#include <fmt/ranges.h>

#include "core/base/counted.h"
#include "core/base/log.h"
#include "core/base/phase_timer.h"
#include "core/device/allocator.h"
#include "core/io/safetensors.h"
#include "models/weights.h"
#include "parallel/agree.h"
#include "parallel/watchdog.h"
#include "train/config/config_writer.h"
#include "train/kept_configs.h"
#include "train/kept_tokenizer.h"
#include "train/memory_check.h"
#include "train/rank_facts.h"
#include "train/resume.h"
#include "train/run_state.h"
#include "train/saved_model.h"
#include "train/signals.h"
#include "train/task_table.h"
#include "train/text_data.h"

namespace adagate {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kEvaluationRows = 8;  // samples of a batch

void log_changes(const std::vector<ConfigChange>& changes) {
  auto [computed, harmless] =
      std::pair{with_role(KeyRole::computation, changes), with_role(KeyRole::harmless, changes)};
  if (!computed.empty())
    log::warn("changed since the saved run, as allowed: {}", changes_text(computed));
  if (!harmless.empty()) log::info("changed since the saved run: {}", changes_text(harmless));
}

std::vector<RankFact> facts_of(const TrainerOptions& options) {
  return {{"--overwrite", options.overwrite ? "given" : "not given"},
          {"--allow-change", fmt::format("{}", fmt::join(options.allowed_changes, ","))},
          {"the task", std::string(options.task ? options.task->name : "that of the key task")},
          {"the batch rule", options.batch ? text_of(*options.batch) : "train.batch"}};
}

double seconds_since(PhaseTimer::Clock::time_point start) {
  return std::chrono::duration<double>(PhaseTimer::Clock::now() - start).count();
}

}  // namespace

Trainer::Trainer(RunConfig config, TrainerOptions options, std::shared_ptr<Communicator> world)
    : config_(std::move(config)),
      options_(std::move(options)),
      task_(options_.task ? *options_.task : task_named(config_.task)),
      mesh_(make_mesh(started_alike(std::move(world), config_, facts_of(options_)),
                      static_cast<int>(config_.parallel.expert))),
      keeper_(checkpoint_directory(), config_.checkpoint.keep, mesh_.world->rank() == 0) {
  if (options_.config_yaml.empty()) options_.config_yaml = write_yaml(config_);
  for (const StateTensor& state : options_.states)
    check(kind_of(state.name) == "run", "the caller's state {} must be called run/...", state.name);
  on_all_ranks(*mesh_.world, [&] {
    tokenizer_ = named("data.tokenizer", [&] { return load_tokenizer(config_.data.tokenizer); });
    check_vocabulary(config_, *tokenizer_);
  });
  same_on_all_ranks(*mesh_.world,
                    {file_fact("data.tokenizer", config_.data.tokenizer, tokenizer_->hash())},
                    "give all ranks the same tokenizer");
  check_memory_of_ranks(*mesh_.world, config_, task_);
  output_ = std::make_unique<RunOutput>(
      config_, RunOutput::Options{options_.config_yaml, options_.config_files, options_.overwrite},
      *mesh_.world);
  build_model();
  load_state();
  check_same_weights(*store_, mesh_, "at the start");
  data_ = task_.data.open(config_, *tokenizer_,
                          {.folder = output_->cache(), .made = &output_->made()}, *mesh_.world);
  if (options_.samples) samples_ = options_.samples(*data_.train);
  SamplerConfig sampler = sampler_config(config_);
  if (options_.batch) sampler.batch = *options_.batch;
  loader_ = std::make_unique<DataLoader>(samples_ ? *samples_ : *data_.train, sampler,
                                         mesh_.world->rank(), mesh_.world->size(),
                                         static_cast<int>(config_.data.prefetch));
  plan_steps();
  // Ctrl-C means now: no step is made for it, nor anything left.
  on_all_ranks(*mesh_.world, [] {
    if (stop_signal() == SIGINT) check_not_stopped(kStoppedEarly);
  });
  output_->claim(total_steps());
}

Trainer::~Trainer() = default;

fs::path Trainer::checkpoint_directory() const {
  return fs::path(config_.output) / "checkpoints";
}

int64_t Trainer::continued_step() const {
  return output_->goes_on_here() ? start_step_ : -1;
}

void Trainer::build_model() {
  model_ = task_.make_model(config_, mesh_);
  StoreOptions store{.compute = config_.precision == "bf16" ? DType::bf16 : DType::f32};
  store.allocate_grad = [this](ParameterGroup group, size_t bytes) {
    return mesh_.group(group).copies->allocate(bytes);
  };
  store_ = std::make_unique<ParameterStore>(*model_, store);
  if (config_.checkpoint.initial_weights.empty()) {
    store_->initialize(static_cast<uint64_t>(config_.seed));
  } else {
    check_same_file(*mesh_.world, "checkpoint.initial_weights", config_.checkpoint.initial_weights);
    on_all_ranks(*mesh_.world, [&] {
      named("checkpoint.initial_weights",
            [&] { load_weights(config_.checkpoint.initial_weights, store_->parameters()); });
      store_->refresh_compute();
    });
    trim_allocator();  // reading took blocks that no step asks for
  }
  optimizer_ = std::make_unique<AdamW>(*store_, config_.train.optimizer);
  step_ = std::make_unique<TrainingStep>(
      *model_, task_.objective, *store_, *optimizer_, mesh_,
      TrainingStepOptions{.seed = static_cast<uint64_t>(config_.seed),
                          .clip_norm = config_.train.optimizer.clip_norm,
                          .recompute_blocks = config_.train.activation_checkpointing == "block"});
  if (model_->moe_layers() > 0)
    evaluation_routing_ = std::make_unique<RoutingStep>(routing_step_of(*model_));
}

void Trainer::plan_steps() {
  if (saved_run_)
    on_all_ranks(*mesh_.world, [&] {
      restore_position(*saved_run_, state_, config_, data_.train_hash, *loader_);
    });
  calendar_.emplace(config_, *loader_);
  if (saved_run_) follow_saved_run();
  int64_t warmup = calendar_->warmup_steps();
  if (warmup >= total_steps() && warmup > 1 && mesh_.world->rank() == 0) {
    log::warn(
        "train.schedule.warmup is {}, train.length {}: the learning rate rises to the end; shorten "
        "the warm-up",
        counted(warmup, "step"), counted(total_steps(), "step"));
  }
}

std::vector<StateTensor> Trainer::states() const {
  std::vector<StateTensor> states = model_states(*store_, *model_);
  for (StateTensor& moment : optimizer_->states()) states.push_back(std::move(moment));
  states.insert(states.end(), options_.states.begin(), options_.states.end());
  return states;
}

void Trainer::load_state() {
  if (!output_->resumed_from()) return;
  const fs::path& from = *output_->resumed_from();
  check_same_file(*mesh_.world, "checkpoint.resume", from / "manifest.json");
  on_all_ranks(*mesh_.world,
               [&] { saved_run_ = open_saved_run(from, config_, *tokenizer_, task_); });
  std::vector<StateTensor> asked = states();
  if (saved_run_->order) asked.push_back(order_state(saved_run_->order));
  state_ = load_checkpoint(from, asked, mesh_).state;
  trim_allocator();
  store_->refresh_compute();
  optimizer_->set_steps(state_.step - saved_run_->record.skipped_steps);
  keeper_.resumed(from, saved_run_->record.skipped_in_a_row);
  saved_step_ = start_step_ = state_.step;
  evaluation_due_ = saved_run_->record.evaluation_due;
  best_ = read_best(state_.extra, best_kind(task_));
  log::info("resumed from {} at step {}", from.string(), state_.step);
}

// Where the saved run stood in its data and its schedule, and what is otherwise now.
void Trainer::follow_saved_run() {
  const SavedRun& saved = *saved_run_;
  on_all_ranks(*mesh_.world, [&] {
    changes_ = allowed_changes(saved, config_, calendar_->sizes(), data_.validation_hash,
                               AllowedChanges(options_.allowed_changes));
  });
  LengthChange change = calendar_->follow(saved, state_.step);
  if (mesh_.world->rank() != 0) return;
  log_changes(changes_);
  if (change.message.empty()) return;
  if (change.jump)
    log::warn("{}", change.message);
  else
    log::info("{}", change.message);
}

// From its first step on the output directory tells of this configuration.
void Trainer::begin_stretch() {
  stretch_begun_ = true;
  on_all_ranks(*mesh_.world, [&] {
    if (mesh_.world->rank() != 0) return;
    keep_tokenizer(config_.output, config_.data.tokenizer, *tokenizer_);
    keep_configuration(config_.output, options_.config_yaml, start_step_,
                       changes_.empty() ? "" : saved_run_->config_yaml);
  });
  if (!saved_run_) return;
  for (auto* observer : observers_) observer->on_resume({start_step_, changes_});
}

void Trainer::begin_epoch() {
  DataPosition position = loader_->position();
  if (position.step != 0) return;
  if (epoch_hook_) take_order(position.epoch);
  calendar_->renew(state_.step);
}

void Trainer::take_order(int64_t epoch) {
  set_progress_note(fmt::format("start of epoch {}", epoch));
  std::vector<int64_t> order = epoch_hook_(epoch);
  std::string_view bytes(reinterpret_cast<const char*>(order.data()), 8 * order.size());
  same_on_all_ranks(
      *mesh_.world,
      {{fmt::format("the order of the samples in epoch {}", epoch),
        fmt::format("{} samples, {}", order.size(), hash_text(checksum_bytes(bytes)))}},
      "the hook at an epoch's start gives all ranks the same");
  on_all_ranks(*mesh_.world, [&] { loader_->set_order(std::move(order)); });
}

void Trainer::save() {
  if (saved_step_ == state_.step) return;
  std::string when = fmt::format("after step {}", state_.step);
  check_same_weights(*store_, mesh_, when);
  set_progress_note(fmt::format("checkpoint of step {}", state_.step));
  auto start = PhaseTimer::Clock::now();
  DataState data = loader_->state();
  std::vector<StateTensor> saved = states();
  if (!data.order.empty())
    saved.push_back(order_state(Tensor::from(data.order, {data.dataset_size})));
  check_same_states(saved, mesh_, when);
  state_.epoch = data.position.epoch;
  state_.epoch_step = data.position.step;
  RunRecord{.seed = static_cast<int64_t>(data.seed),
            .dataset_size = data.dataset_size,
            .batch = data.batch,
            .epoch_steps = data.epoch_steps,
            .skipped_steps = state_.step - optimizer_->steps(),
            .skipped_in_a_row = keeper_.skipped_in_a_row(),
            .evaluation_due = evaluation_due_,
            .data_hash = data_.train_hash,
            .validation_hash = data_.validation_hash,
            .tokenizer = config_.data.tokenizer,
            .tokenizer_hash = hash_text(tokenizer_->hash()),
            .schedule = calendar_->schedule(),
            .own_task = options_.task ? std::string(options_.task->name) : ""}
      .write(state_);
  write_best(best_, state_.extra);
  fs::path path =
      save_checkpoint(checkpoint_directory(), saved, state_, options_.config_yaml, mesh_, 0);
  keeper_.saved(path);
  saved_step_ = state_.step;
  save_due_ = false;
  CheckpointReport report{.step = state_.step, .path = path, .seconds = seconds_since(start)};
  for (auto* observer : observers_) observer->on_checkpoint(report);
}

StepReport Trainer::one_step() {
  auto start = PhaseTimer::Clock::now();
  PhaseTimer::current().take();
  set_progress_note(fmt::format("step {}", state_.step + 1));
  StepReport report;
  report.epoch = loader_->position().epoch;
  report.learning_rate = calendar_->learning_rate(state_.step);
  StepBatches batches;
  {
    PhaseScope phase(Phase::data);
    batches = loader_->next_step();
  }
  report.result = step_->run(batches, state_.step, report.learning_rate, stop_wanted());
  const StepResult& result = report.result;
  state_.step++;
  if (state_.step % config_.train.log_every == 0) {
    PhaseScope phase(Phase::optimizer);
    report.parameter_norm = step_->parameter_norm();
  }
  state_.consumed_samples += result.samples;
  state_.consumed_tokens += result.targets;
  report.step = state_.step;
  report.total_steps = total_steps();
  report.consumed_tokens = state_.consumed_tokens;
  double assignments = 0;
  if (model_->moe_layers() > 0) {
    report.routing = &step_->routing();
    for (int64_t l = 0; l < report.routing->layers(); ++l) {
      assignments += report.routing->layer(l).assignments();
    }
  }
  report.flops = training_flops(model_->flops(), result.tokens, result.visible_pairs,
                                static_cast<int64_t>(assignments));
  report.peak_flops = 1e9 * config_.train.peak_gflops;
  report.phases = PhaseTimer::current().take();
  report.peak_memory = allocator_stats().peak_bytes_in_use;
  report.best = best_;
  report.evaluations_to_come = calendar_->evaluations_to_come(state_.step);
  report.checkpoints_to_come = calendar_->checkpoints_to_come(state_.step);
  report.seconds = seconds_since(start);
  keeper_.on_step(result.skipped);
  return report;
}

std::optional<double> Trainer::run_evaluation() {
  set_progress_note(fmt::format("evaluation after step {}", state_.step));
  auto start = PhaseTimer::Clock::now();
  int64_t limit = config_.train.evaluate_samples > 0 ? config_.train.evaluate_samples : -1;
  EvaluationPass pass(*data_.validation, kEvaluationRows, mesh_.world->rank(), mesh_.world->size(),
                      limit);
  EvaluationResult result =
      evaluate(task_, *model_, pass, mesh_, evaluation_routing_.get(), stop_wanted);
  if (result.stopped) return std::nullopt;
  best_ = better(best_, metric_named(task_.best, result.metrics), state_.step);
  EvaluationReport report{.step = state_.step,
                          .metrics = result.metrics,
                          .targets = result.targets,
                          .seconds = seconds_since(start),
                          .routing = evaluation_routing_.get(),
                          .best = best_};
  for (auto* observer : observers_) observer->on_evaluation(report);
  return result.loss();
}

std::optional<TrainingEnd> Trainer::end_by_evaluation() {
  auto loss = run_evaluation();
  if (!loss) return TrainingEnd::stopped_by_signal;
  evaluation_due_ = false;
  bool reached = config_.train.stop_at_loss > 0 && *loss <= config_.train.stop_at_loss;
  return reached ? std::optional(TrainingEnd::loss_reached) : std::nullopt;
}

TrainingEnd Trainer::train() {
  if (evaluation_due_ && data_.validation) {
    auto end = end_by_evaluation();
    if (!evaluation_due_) saved_step_ = -1;  // the checkpoint still says that it is due
    if (end) return *end;
  }
  while (state_.step < total_steps()) {
    begin_epoch();
    StepReport report = one_step();
    if (!stretch_begun_) begin_stretch();
    for (auto* observer : observers_) observer->on_step(report);
    bool last = state_.step == total_steps();
    evaluation_due_ = calendar_->evaluation_due(state_.step);
    if (report.result.stop_requested) return TrainingEnd::stopped_by_signal;
    if (evaluation_due_) {
      if (auto end = end_by_evaluation()) return *end;
    }
    save_due_ = save_due_ || calendar_->checkpoint_due(state_.step);
    if (save_due_ && !last && keeper_.skipped_in_a_row() == 0) save();
  }
  return TrainingEnd::finished;
}

TrainingEnd Trainer::run() {
  if (state_.step >= total_steps() && mesh_.world->rank() == 0) {
    log::info(
        "step {} of {} is reached already: nothing to train; raise train.length to go on{}",
        state_.step, total_steps(),
        state_.step == total_steps() ? "" : ", or go back with --resume=CHECKPOINT --overwrite");
  }
  TrainingEnd end = train();
  if (config_.checkpoint.save_at_end || end == TrainingEnd::stopped_by_signal) save();
  keeper_.ended();
  for (auto* observer : observers_) observer->on_end(end);
  return end;
}

}  // namespace adagate
