#include "parallel/same_program.h"

#include <algorithm>
#include <string>
#include <vector>

#include "core/io/safetensors.h"
#include "parallel/rank_names.h"

namespace adagate {
namespace {

// Fixed for all versions to come, so that each understands the others' as far as this.
struct ProgramRecord {
  char magic[8] = {'a', 'd', 'a', 'g', 'a', 't', 'e', '1'};
  uint64_t executable = 0;  // XXH3; 0: cannot be read
  char host[64] = {};
  char version[176] = {};
};
static_assert(sizeof(ProgramRecord) == 256);

template <size_t N>
void put(char (&field)[N], std::string_view text) {
  text.copy(field, N - 1);
}

template <size_t N>
std::string text_of(const char (&field)[N]) {
  return {field, std::find(field, field + N, '\0')};
}

uint64_t hash_of_executable() {
  try {
    return checksum_file("/proc/self/exe");
  } catch (const Error&) {  // no /proc
    return 0;
  }
}

std::string describe(const ProgramRecord& program) {
  return fmt::format("{} with checksum {:016x}", text_of(program.version), program.executable);
}

}  // namespace

void check_same_program(MPI_Comm world, std::string_view version) {
  int size = 1;
  ADAGATE_MPI(MPI_Comm_size(world, &size));
  ProgramRecord own;
  own.executable = hash_of_executable();
  put(own.host, host_name());
  put(own.version, version.empty() ? "adagate" : version);
  std::vector<ProgramRecord> all(static_cast<size_t>(size));
  ADAGATE_MPI(MPI_Allgather(&own, sizeof own, MPI_BYTE, all.data(), sizeof own, MPI_BYTE, world));
  std::vector<std::string> hosts;
  for (const ProgramRecord& program : all) hosts.push_back(text_of(program.host));
  RankNames names(hosts);
  std::vector<int> first, others;
  const ProgramRecord* other = nullptr;
  for (int r = 0; r < size; ++r) {
    const ProgramRecord& program = all[static_cast<size_t>(r)];
    bool same = program.executable == all[0].executable &&
                text_of(program.version) == text_of(all[0].version) &&
                std::equal(program.magic, program.magic + sizeof program.magic, all[0].magic);
    (same ? first : others).push_back(r);
    if (!same && !other) other = &program;
  }
  if (!other) return;
  fail(
      "the program is {} on {}, {} on {}: install the same build on all hosts, compiled for the "
      "oldest of their CPUs (or with -DADAGATE_NATIVE=OFF)",
      describe(all[0]), names.of(first), describe(*other), names.of(others));
}

}  // namespace adagate
