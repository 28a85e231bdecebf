// The tasks by name, one entry each: the words and the help of the key `task`.
#pragma once

#include <array>

#include "train/tasks/language_modelling.h"

namespace adagate {

// A new task is one entry here; tests/train/test_tasks.cpp runs over the table.
inline constexpr std::array kTasks = {kLanguageModelling};

// Throws Error on an unknown name, listing the known ones.
const Task& task_named(std::string_view name);

}  // namespace adagate
