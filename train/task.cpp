#include "train/task.h"

#include "core/base/named.h"

namespace adagate {

const MetricKind& best_kind(const Task& task) {
  return entry_named("the best metric", task.metrics, task.best);
}

}  // namespace adagate
