#include "train/run_restore.h"

#include "core/base/log.h"
#include "core/device/allocator.h"
#include "parallel/agree.h"
#include "train/rank_facts.h"
#include "train/run.h"

namespace adagate {
namespace {

void log_changes(const std::vector<ConfigChange>& changes) {
  auto [computed, harmless] =
      std::pair{with_role(KeyRole::computation, changes), with_role(KeyRole::harmless, changes)};
  if (!computed.empty())
    log::warn("changed since the saved run, as allowed: {}", changes_text(computed));
  if (!harmless.empty()) log::info("changed since the saved run: {}", changes_text(harmless));
}

}  // namespace

SavedRun restore_states(const std::filesystem::path& checkpoint, Run& run) {
  check_same_file(*run.mesh.world, "checkpoint.resume", checkpoint / "manifest.json");
  SavedRun saved;
  on_all_ranks(*run.mesh.world,
               [&] { saved = open_saved_run(checkpoint, run.config, *run.tokenizer, run.task); });
  std::vector<StateTensor> asked = run.states();
  if (saved.order) asked.push_back(order_state(saved.order));
  saved.state = load_checkpoint(checkpoint, asked, run.mesh).state;
  trim_allocator();
  run.store->refresh_compute();
  run.optimizer->set_steps(saved.state.step - saved.record.skipped_steps);
  log::info("resumed from {} at step {}", checkpoint.string(), saved.state.step);
  return saved;
}

std::vector<ConfigChange> follow_saved_run(const Run& run, Calendar& calendar) {
  const SavedRun& saved = *run.saved;
  std::vector<ConfigChange> changes;
  on_all_ranks(*run.mesh.world, [&] {
    changes = allowed_changes(saved, run.config, calendar.sizes(), run.data.validation_hash,
                              AllowedChanges(run.options.allowed_changes));
  });
  LengthChange change = calendar.follow(saved, saved.state.step);
  if (!run.first_rank()) return changes;
  log_changes(changes);
  if (change.message.empty()) return changes;
  if (change.jump)
    log::warn("{}", change.message);
  else
    log::info("{}", change.message);
  return changes;
}

}  // namespace adagate
