// What the operating system leaves to this program: CPU time and memory, bounded by control groups
// (containers, batch systems; versions 1 and 2), ulimit, and what other programs use.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>

namespace adagate {

// CPU time per time that passes: docker --cpus=1.5 gives 1.5.
struct CpuQuota {
  double cpus = 0;   // 0: none
  std::string file;  // that says so

  // Threads that it keeps busy: the quota rounded up, at least 1; `otherwise` without a quota.
  int threads(int otherwise) const;
};

// The smallest quota of this process's control groups, from its own one up to the root. Files are
// read under `root`, so that tests can make up a machine.
CpuQuota read_cpu_quota(const std::filesystem::path& root = "/");

// Memory that one rank may still take.
struct MemoryBudget {
  int64_t bytes = std::numeric_limits<int64_t>::max();  // the highest number: no bound is known
  std::string source;  // what bounds it, to follow "by": "the free memory of this machine"
};

// For each of `local_ranks` ranks of this node that all take alike, before they have taken it: the
// least that the machine's free memory, control groups and ulimit leave. Pages that caches of files
// hold count as free. To compare a need with it: bytes_per_rank > available_memory(n).bytes.
MemoryBudget available_memory(int local_ranks, const std::filesystem::path& root = "/");

}  // namespace adagate
