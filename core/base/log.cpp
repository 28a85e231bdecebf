#include "core/base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

#include "core/base/error.h"

namespace adagate::log {
namespace {

spdlog::level::level_enum g_level = spdlog::level::info;
int g_rank = 0;

void apply() {
  // Other ranks repeat what rank 0 says; their own news starts at a warning.
  spdlog::set_level(g_rank == 0 ? g_level : std::max(g_level, spdlog::level::warn));
}

}  // namespace

void set_rank(int rank, int world_size) {
  static auto logger = spdlog::stderr_color_mt("adagate");
  spdlog::set_default_logger(logger);
  spdlog::set_pattern(world_size > 1 ? fmt::format("%^%l%$ [rank {}] %v", rank) : "%^%l%$ %v");
  g_rank = rank;
  apply();
}

void set_level(const std::string& level) {
  auto parsed = spdlog::level::from_str(level);
  check(parsed != spdlog::level::off || level == "off",
        "unknown log level '{}': use debug, info, warning or error", level);
  g_level = parsed;
  apply();
}

}  // namespace adagate::log
