// CPU quotas and memory limits, from made-up trees of /proc and /sys.
#include <fstream>
#include <map>
#include <string>

#include "parallel/machine_limits.h"
#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"

using namespace adagate;
namespace fs = std::filesystem;

namespace {

constexpr int64_t kMiB = 1 << 20;

// A root folder with these files.
class Machine {
 public:
  explicit Machine(const std::map<std::string, std::string>& files) {
    for (auto& [path, text] : files) {
      fs::path file = root() / path;
      fs::create_directories(file.parent_path());
      std::ofstream(file) << text << "\n";
    }
  }
  fs::path root() const { return folder_.path(); }
  double cpus() const { return read_cpu_quota(root()).cpus; }
  int64_t mebibytes(int ranks) const { return available_memory(ranks, root()).bytes / kMiB; }
  std::string source() const { return available_memory(1, root()).source; }

 private:
  TempFolder folder_;
};

std::string mount(const std::string& top, const std::string& point, const std::string& type,
                  const std::string& options = "rw") {
  return "31 23 0:28 " + top + " " + point + " rw,relatime shared:9 - " + type + " none " + options;
}

const std::string kV2 = mount("/", "/sys/fs/cgroup", "cgroup2");
const std::string kV1 = mount("/", "/sys/fs/cgroup/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct") +
                        "\n" + mount("/", "/sys/fs/cgroup/memory", "cgroup", "rw,memory");

}  // namespace

TEST_CASE("machine limits: a machine without limits has none") {
  CHECK(read_cpu_quota(Machine({}).root()).cpus == 0);
  CHECK(available_memory(1, Machine({}).root()).bytes == std::numeric_limits<int64_t>::max());
  Machine free({{"proc/self/cgroup", "0::/user.slice"},
                {"proc/self/mountinfo", kV2},
                {"sys/fs/cgroup/user.slice/cpu.max", "max 100000"},
                {"sys/fs/cgroup/user.slice/memory.max", "max"}});
  CHECK(free.cpus() == 0);
  CHECK(free.source().empty());
}

TEST_CASE("machine limits: version 2, the smallest of all levels") {
  Machine machine(
      {{"proc/self/cgroup", "0::/a/b"},
       {"proc/self/mountinfo", kV2},
       {"sys/fs/cgroup/a/cpu.max", "150000 100000"},
       {"sys/fs/cgroup/a/b/cpu.max", "400000 100000"},
       {"sys/fs/cgroup/a/c/cpu.max", "10000 100000"},
       {"sys/fs/cgroup/a/memory.max", std::to_string(1000 * kMiB)},
       {"sys/fs/cgroup/a/memory.current", std::to_string(600 * kMiB)},
       {"sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file " + std::to_string(100 * kMiB) +
                                           "\nactive_file " + std::to_string(50 * kMiB)},
       {"sys/fs/cgroup/a/b/memory.max", std::to_string(900 * kMiB)}});
  CHECK(machine.cpus() == 1.5);
  CHECK(read_cpu_quota(machine.root()).file == (machine.root() / "sys/fs/cgroup/a/cpu.max"));
  CHECK(machine.mebibytes(1) == 550);  // 1000 - (600 - 150)
  CHECK(machine.mebibytes(2) == 275);
  CHECK(machine.source() ==
        "the memory limit in " + (machine.root() / "sys/fs/cgroup/a/memory.max").string());
}

TEST_CASE("machine limits: version 1, a hierarchy for each controller") {
  Machine machine(
      {{"proc/self/cgroup", "9:name=systemd:/x\n4:memory:/job/1\n1:cpu,cpuacct:/box\n0::/"},
       {"proc/self/mountinfo", kV1},
       {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1"},
       {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000"},
       {"sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", "25000"},
       {"sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us", "50000"},
       {"sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"},
       {"sys/fs/cgroup/memory/job/memory.limit_in_bytes", std::to_string(800 * kMiB)},
       {"sys/fs/cgroup/memory/job/memory.usage_in_bytes", std::to_string(500 * kMiB)},
       {"sys/fs/cgroup/memory/job/memory.stat",
        "inactive_file 5\ntotal_inactive_file " + std::to_string(100 * kMiB)}});
  CHECK(machine.cpus() == 0.5);
  CHECK(machine.mebibytes(1) == 400);
  // A limit that is used up leaves nothing, not less than that.
  std::ofstream(machine.root() / "sys/fs/cgroup/memory/job/memory.limit_in_bytes") << 1000;
  CHECK(machine.mebibytes(1) == 0);
}

TEST_CASE("machine limits: what a container sees of the groups") {
  // A bind mount of its own group, under a path with a blank.
  Machine bound({{"proc/self/cgroup", "1:cpu:/docker/id/inner"},
                 {"proc/self/mountinfo", mount("/docker/id", "/my\\040groups", "cgroup", "cpu")},
                 {"my groups/inner/cpu.cfs_quota_us", "300000"},
                 {"my groups/inner/cpu.cfs_period_us", "100000"}});
  CHECK(bound.cpus() == 3);
  // Another group's.
  Machine other({{"proc/self/cgroup", "1:cpu:/docker/idx"},
                 {"proc/self/mountinfo", mount("/docker/id", "/groups", "cgroup", "cpu")},
                 {"groups/cpu.cfs_quota_us", "300000"},
                 {"groups/cpu.cfs_period_us", "100000"}});
  CHECK(other.cpus() == 0);
  // Its own namespace: the group is the root, and it was moved in from elsewhere.
  for (const char* group : {"/", "/../elsewhere"}) {
    Machine own({{"proc/self/cgroup", std::string("0::") + group},
                 {"proc/self/mountinfo", kV2},
                 {"sys/fs/cgroup/cpu.max", "200000 100000"}});
    CHECK(own.cpus() == 2);
  }
}

TEST_CASE("machine limits: the machine's free memory and ulimit") {
  std::map<std::string, std::string> files = {
      {"proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:   409600 kB\nSwapFree: 102400 kB"}};
  Machine free(files);
  CHECK(free.mebibytes(1) == 500);
  CHECK(free.mebibytes(4) == 125);
  CHECK(free.source() == "the free memory of this machine");
  files["proc/self/limits"] = "Limit   Soft Limit  Hard Limit  Units\nMax address space  " +
                              std::to_string(300 * kMiB) + "  unlimited  bytes";
  files["proc/self/status"] = "Name: x\nVmSize:\t  102400 kB";
  Machine limited(files);
  CHECK(limited.mebibytes(1) == 200);
  CHECK(limited.source() == "the limit of ulimit -v");
  CHECK(limited.mebibytes(4) == 125);  // each process has its own 200
}

TEST_CASE("machine limits: threads for a quota") {
  CHECK(CpuQuota{}.threads(7) == 7);
  CHECK(CpuQuota{0.2, ""}.threads(7) == 1);
  CHECK(CpuQuota{1, ""}.threads(7) == 1);
  CHECK(CpuQuota{1.5, ""}.threads(7) == 2);
  CHECK(CpuQuota{1e30, ""}.threads(7) > 1000);
}

TEST_CASE("machine limits: nonsense in the files is no limit") {
  for (const char* text : {"", "x", "-5 100000", "100000", "100000 0", "0 0"}) {
    Machine machine({{"proc/self/cgroup", "no colons\n0::/\n::"},
                     {"proc/self/mountinfo", "short\n - \n" + kV2},
                     {"sys/fs/cgroup/cpu.max", text},
                     {"proc/meminfo", "MemAvailable: much"}});
    CHECK(machine.cpus() == 0);
    CHECK(machine.source().empty());
  }
}
