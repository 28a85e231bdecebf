#include "train/run_saver.h"

#include <chrono>

#include "core/base/phase_timer.h"
#include "parallel/watchdog.h"
#include "train/rank_facts.h"

namespace adagate {

RunSaver::RunSaver(const Run& run, const Calendar& calendar)
    : run_(run),
      calendar_(calendar),
      keeper_(run.checkpoints(), run.config.checkpoint.keep, run.first_rank()) {
  if (!run.saved) return;
  keeper_.resumed(run.saved->checkpoint, run.saved->record.skipped_in_a_row);
  saved_step_ = run.saved->state.step;
}

void RunSaver::on_step(int64_t step, bool skipped) {
  keeper_.on_step(skipped);
  due_ = due_ || calendar_.checkpoint_due(step);
}

RunRecord RunSaver::record_of(const RunProgress& progress, const DataState& data) const {
  return {.seed = static_cast<int64_t>(data.seed),
          .dataset_size = data.dataset_size,
          .batch = data.batch,
          .epoch_steps = data.epoch_steps,
          .skipped_steps = progress.state.step - run_.optimizer->steps(),
          .skipped_in_a_row = keeper_.skipped_in_a_row(),
          .evaluation_due = progress.evaluation_due,
          .data_hash = run_.data.train_hash,
          .validation_hash = run_.data.validation_hash,
          .tokenizer = run_.config.data.tokenizer,
          .tokenizer_hash = hash_text(run_.tokenizer->hash()),
          .schedule = calendar_.schedule(),
          .own_task = run_.options.task ? std::string(run_.task.name) : ""};
}

std::optional<CheckpointReport> RunSaver::save(RunProgress& progress) {
  TrainingState& state = progress.state;
  if (saved_step_ == state.step) return std::nullopt;
  std::string when = fmt::format("after step {}", state.step);
  check_same_weights(*run_.store, run_.mesh, when);
  set_progress_note(fmt::format("checkpoint of step {}", state.step));
  auto start = PhaseTimer::Clock::now();
  DataState data = run_.loader->state();
  std::vector<StateTensor> saved = run_.states();
  if (!data.order.empty())
    saved.push_back(order_state(Tensor::from(data.order, {data.dataset_size})));
  check_same_states(saved, run_.mesh, when);
  state.epoch = data.position.epoch;
  state.epoch_step = data.position.step;
  record_of(progress, data).write(state);
  write_best(progress.best, state.extra);
  std::filesystem::path path =
      save_checkpoint(run_.checkpoints(), saved, state, run_.options.config_yaml, run_.mesh, 0);
  keeper_.saved(path);
  saved_step_ = state.step;
  due_ = false;
  std::chrono::duration<double> seconds = PhaseTimer::Clock::now() - start;
  return CheckpointReport{.step = state.step, .path = path, .seconds = seconds.count()};
}

}  // namespace adagate
