#include "train/take_step.h"

#include <chrono>

#include "core/device/backend.h"
#include "parallel/watchdog.h"
#include "train/signals.h"

namespace adagate {
namespace {

StepResult run_step(Run& run, int64_t step, double learning_rate) {
  StepBatches batches;
  {
    PhaseScope phase(Phase::data);
    batches = run.loader->next_step();
  }
  return run.step->run(batches, step, learning_rate, stop_wanted());
}

double flops_of(const Run& run, const StepResult& result) {
  const RoutingStep& routing = run.step->routing();
  double assignments = 0;
  for (int64_t l = 0; l < routing.layers(); ++l) assignments += routing.layer(l).assignments();
  return training_flops(run.model->flops(), result.tokens, result.visible_pairs,
                        static_cast<int64_t>(assignments));
}

}  // namespace

StepReport take_step(Run& run, const Calendar& calendar, RunProgress& progress) {
  auto start = PhaseTimer::Clock::now();
  PhaseTimer::current().start();
  TrainingState& state = progress.state;
  set_progress_note(fmt::format("step {}", state.step + 1));
  StepReport report;
  report.epoch = run.loader->position().epoch;
  report.learning_rate = calendar.learning_rate(state.step);
  report.result = run_step(run, state.step, report.learning_rate);
  state.step++;
  if (state.step % run.config.train.log_every == 0) {
    PhaseScope phase(Phase::optimizer);
    report.parameter_norm = run.step->parameter_norm();
  }
  state.consumed_samples += report.result.samples;
  state.consumed_tokens += report.result.targets;
  report.step = state.step;
  report.total_steps = calendar.total_steps();
  report.consumed_tokens = state.consumed_tokens;
  if (run.step->routing().layers() > 0) report.routing = &run.step->routing();
  report.flops = flops_of(run, report.result);
  report.peak_flops = 1e9 * run.config.train.peak_gflops;
  report.phases = PhaseTimer::current().take();
  report.peak_memory = memory_stats(run.place.device).peak_bytes_in_use;
  report.best = progress.best;
  report.evaluations_to_come = calendar.evaluations_to_come(state.step);
  report.checkpoints_to_come = calendar.checkpoints_to_come(state.step);
  report.seconds = std::chrono::duration<double>(PhaseTimer::Clock::now() - start).count();
  return report;
}

}  // namespace adagate
