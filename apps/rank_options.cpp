#include "apps/rank_options.h"

#include "apps/launch.h"
#include "apps/version.h"
#include "parallel/watchdog.h"

namespace adagate {

void add_rank_options(CLI::App& command, RankOptions& options) {
  constexpr double kMost = 1e9;
  command
      .add_option("--timeout", options.timeout,
                  "Seconds without a sign of life from any rank until those that wait give up; 0: "
                  "never")
      ->check(CLI::Range(0.0, kMost))
      ->capture_default_str();
  command
      .add_option("--start-timeout", options.start_timeout,
                  "Seconds for the ranks to start and reach each other; 0: no bound")
      ->check(CLI::Range(0.0, kMost))
      ->capture_default_str();
}

StartOptions start_options(const RankOptions& options) {
  set_collective_timeout(options.timeout);
  return {
      .timeout = options.start_timeout, .give_up = end_stuck_start, .version = program_version()};
}

}  // namespace adagate
