// Messages to the terminal (stderr), prefixed with the rank when there are several.
#pragma once

#include <spdlog/spdlog.h>

namespace adagate::log {

// Names this process's rank in every message; only rank 0 prints `info`, all print warnings.
void set_rank(int rank, int world_size);

// One of debug, info, warning, error. Throws Error on another word.
void set_level(const std::string& level);

using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::warn;

}  // namespace adagate::log
