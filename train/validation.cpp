#include "train/validation.h"

#include <chrono>

#include "core/base/phase_timer.h"
#include "parallel/watchdog.h"
#include "train/evaluation.h"
#include "train/signals.h"

namespace adagate {
namespace {

constexpr int64_t kRows = 8;  // samples of a batch

}  // namespace

Validation::Validation(const Run& run) : run_(run) {
  if (run.model->moe_layers() > 0) routing_.emplace(routing_step_of(*run.model));
}

std::optional<EvaluationReport> Validation::evaluate_after(int64_t step) {
  set_progress_note(fmt::format("evaluation after step {}", step));
  auto start = PhaseTimer::Clock::now();
  const Communicator& world = *run_.mesh.world;
  int64_t samples = run_.config.train.evaluate_samples;
  EvaluationPass pass(*run_.data.validation, kRows, world.rank(), world.size(),
                      samples > 0 ? samples : -1);
  RoutingStep* routing = routing_ ? &*routing_ : nullptr;
  EvaluationResult result = evaluate(run_.task, *run_.model, pass, run_.mesh, routing, stop_wanted);
  if (result.stopped) return std::nullopt;
  std::chrono::duration<double> seconds = PhaseTimer::Clock::now() - start;
  return EvaluationReport{.step = step,
                          .metrics = result.metrics,
                          .targets = result.targets,
                          .seconds = seconds.count(),
                          .routing = routing};
}

}  // namespace adagate
