// Ranks as messages name them: by number, and by host where there are several.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace adagate {

// Of the machine that this process runs on, e.g. "node17"; without its domain.
std::string host_name();

class RankNames {
 public:
  // Collective: every rank tells its host.
  explicit RankNames(Communicator& ranks, const std::string& host = host_name());
  // Of ranks 0, 1, ...
  explicit RankNames(std::vector<std::string> hosts) : hosts_(std::move(hosts)) {}

  const std::string& host(int rank) const { return hosts_[static_cast<size_t>(rank)]; }
  bool several_hosts() const;
  // "rank 2", "ranks 1 and 3 (host node17)", "ranks 0, 1, 2 and 9 more (hosts a, b and c)"; hosts
  // are named only where there are several. `ranks`: not empty, in order.
  std::string of(std::span<const int> ranks) const;
  std::string of(int rank) const { return of({&rank, 1}); }

 private:
  std::vector<std::string> hosts_;
};

}  // namespace adagate
