#include "apps/rank_options.h"

#include "apps/launch.h"
#include "apps/options.h"
#include "apps/version.h"
#include "parallel/watchdog.h"

namespace adagate {

void add_rank_options(CLI::App& command, RankOptions& options) {
  constexpr double kMost = 1e9;
  add_value(command, "--timeout", options.timeout,
            "Seconds without a sign of life from any rank until those that wait give up; 0: never",
            between(0, kMost));
  add_value(command, "--start-timeout", options.start_timeout,
            "Seconds for the ranks to start and reach each other; 0: no bound", between(0, kMost));
}

StartOptions start_options(const RankOptions& options) {
  set_collective_timeout(options.timeout);
  return {
      .timeout = options.start_timeout, .give_up = end_stuck_start, .version = program_version()};
}

}  // namespace adagate
