#include "train/task_table.h"

#include "core/base/named.h"
#include "train/config/run_config.h"

namespace adagate {

const Task& task_named(std::string_view name) {
  return entry_named("task", kTasks, name);
}

std::vector<std::string> names_of_tasks() {
  return names_of(kTasks);
}

std::string help_of_tasks() {
  return help_of(kTasks);
}

}  // namespace adagate
