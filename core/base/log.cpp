#include "core/base/log.h"

#include <cstdlib>
#include <mutex>
#include <spdlog/sinks/stdout_color_sinks.h>

#include "core/base/error.h"

namespace adagate::log {
namespace {

// https://no-color.org
spdlog::color_mode colors() {
  const char* none = std::getenv("NO_COLOR");
  return none && *none ? spdlog::color_mode::never : spdlog::color_mode::automatic;
}

class Sink final : public spdlog::sinks::stderr_color_sink_mt {
 public:
  Sink() { set_color_mode(colors()); }

  void set_before(std::function<void()> action) {
    std::lock_guard lock(mutex_);
    before_ = std::move(action);
  }
  void log(const spdlog::details::log_msg& message) override {
    {
      std::lock_guard lock(mutex_);
      if (before_) before_();
    }
    spdlog::sinks::stderr_color_sink_mt::log(message);
  }

 private:
  std::mutex mutex_;
  std::function<void()> before_;
};

const std::shared_ptr<Sink>& sink() {
  static auto instance = std::make_shared<Sink>();
  return instance;
}

spdlog::level::level_enum g_level = spdlog::level::info;
int g_rank = 0;

void apply() {
  // Other ranks repeat what rank 0 says; their own news starts at a warning.
  spdlog::set_level(g_rank == 0 ? g_level : std::max(g_level, spdlog::level::warn));
}

}  // namespace

void set_rank(int rank, int world_size) {
  static auto logger = std::make_shared<spdlog::logger>("adagate", sink());
  spdlog::set_default_logger(logger);
  spdlog::set_pattern(world_size > 1 ? fmt::format("%^%l%$ [rank {}] %v", rank) : "%^%l%$ %v");
  g_rank = rank;
  apply();
}

void set_before_message(std::function<void()> action) {
  sink()->set_before(std::move(action));
}

void set_level(const std::string& level) {
  auto parsed = spdlog::level::from_str(level);
  check(parsed != spdlog::level::off || level == "off",
        "unknown log level '{}': use debug, info, warning or error", level);
  g_level = parsed;
  apply();
}

}  // namespace adagate::log
