#include "train/trainer.h"

#include <csignal>

#include "core/base/counted.h"
#include "core/base/log.h"
#include "core/device/device_phases.h"
#include "parallel/agree.h"
#include "train/run_restore.h"
#include "train/signals.h"
#include "train/take_step.h"

namespace adagate {
namespace {

void warn_of_long_warmup(const Calendar& calendar) {
  int64_t warmup = calendar.warmup_steps(), total = calendar.total_steps();
  if (warmup < total || warmup <= 1) return;
  log::warn(
      "train.schedule.warmup is {}, train.length {}: the learning rate rises to the end; shorten "
      "the warm-up",
      counted(warmup, "step"), counted(total, "step"));
}

void tell_nothing_to_train(int64_t step, int64_t total) {
  if (step < total) return;
  log::info("step {} of {} is reached already: nothing to train; raise train.length to go on{}",
            step, total, step == total ? "" : ", or go back with --resume=CHECKPOINT --overwrite");
}

}  // namespace

Trainer::Trainer(RunConfig config, TrainerOptions options, std::shared_ptr<Communicator> world)
    : run_(std::move(config), std::move(options), std::move(world)),
      calendar_(run_.config, *run_.loader),
      progress_(progress_of(run_.saved, run_.task)),
      saver_(run_, calendar_),
      validation_(run_),
      start_step_(progress_.state.step) {
  if (run_.saved) changes_ = follow_saved_run(run_, calendar_);
  if (run_.first_rank()) warn_of_long_warmup(calendar_);
  // Ctrl-C means now: no step is made for it, nor anything left.
  on_all_ranks(*run_.mesh.world, [] {
    if (stop_signal() == SIGINT) check_not_stopped(kStoppedEarly);
  });
  run_.output->claim(total_steps());
}

Trainer::~Trainer() = default;

int64_t Trainer::continued_step() const {
  return run_.output->goes_on_here() ? start_step_ : -1;
}

TrainingEnd Trainer::run() {
  if (run_.first_rank()) tell_nothing_to_train(progress_.state.step, total_steps());
  PhaseTimer::current().use(device_phase_clock(run_.place.device));
  TrainingEnd end = train();
  PhaseTimer::current().use(nullptr);
  if (run_.config.checkpoint.save_at_end || end == TrainingEnd::stopped_by_signal) save();
  saver_.ended();
  for (auto* observer : observers_) observer->on_end(end);
  return end;
}

TrainingEnd Trainer::train() {
  const int64_t& step = progress_.state.step;
  if (progress_.evaluation_due && validation_.possible()) {
    auto end = evaluate();
    if (!progress_.evaluation_due) saver_.outdated();  // the checkpoint says that it is due
    if (end) return *end;
  }
  while (step < total_steps()) {
    begin_epoch();
    StepReport report = take_step(run_, calendar_, progress_);
    saver_.on_step(step, report.result.skipped);
    if (step == start_step_ + 1) begin_stretch();
    for (auto* observer : observers_) observer->on_step(report);
    progress_.evaluation_due = calendar_.evaluation_due(step);
    if (report.result.stop_requested) return TrainingEnd::stopped_by_signal;
    if (progress_.evaluation_due) {
      if (auto end = evaluate()) return *end;
    }
    if (step < total_steps() && saver_.due()) save();
  }
  return TrainingEnd::finished;
}

void Trainer::begin_epoch() {
  if (run_.loader->position().step != 0) return;
  if (epoch_hook_) take_order(epoch_hook_, *run_.loader, *run_.mesh.world);
  calendar_.renew(progress_.state.step);
}

void Trainer::begin_stretch() {
  run_.output->begin(*run_.tokenizer, start_step_, changes_.empty() ? "" : run_.saved->config_yaml);
  if (!run_.saved) return;
  for (auto* observer : observers_) observer->on_resume({start_step_, changes_});
}

std::optional<TrainingEnd> Trainer::evaluate() {
  auto report = validation_.evaluate_after(progress_.state.step);
  if (!report) return TrainingEnd::stopped_by_signal;
  progress_.evaluation_due = false;
  progress_.best =
      better(progress_.best, metric_named(run_.task.best, report->metrics), report->step);
  report->best = progress_.best;
  for (auto* observer : observers_) observer->on_evaluation(*report);
  double bound = run_.config.train.stop_at_loss;
  bool reached = bound > 0 && report->loss() <= bound;
  return reached ? std::optional(TrainingEnd::loss_reached) : std::nullopt;
}

void Trainer::save() {
  auto report = saver_.save(progress_);
  if (!report) return;
  for (auto* observer : observers_) observer->on_checkpoint(*report);
}

}  // namespace adagate
