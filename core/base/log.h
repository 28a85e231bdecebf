// Messages to the terminal (stderr), prefixed with the rank when there are several.
#pragma once

#include <functional>
#include <spdlog/spdlog.h>

namespace adagate::log {

// Names this process's rank in every message; only rank 0 prints `info`, all print warnings.
void set_rank(int rank, int world_size);

// One of debug, info, warning, error. Throws Error on another word.
void set_level(const std::string& level);

// Called before each message that is printed, by the thread that prints it: whoever renews a line
// on the terminal takes it away. Empty: nobody. It must not log.
void set_before_message(std::function<void()> action);

using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::warn;

}  // namespace adagate::log
