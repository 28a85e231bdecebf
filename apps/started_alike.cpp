#include "apps/started_alike.h"

#include <cstdlib>
#include <gnu/libc-version.h>
#include <iterator>

#include "apps/launch.h"
#include "core/ops/matmul_library.h"

namespace adagate {
namespace {

// mpirun hands its environment to ranks of its own host only, unless told so (-x NAME).
constexpr const char* kNumericVariables[] = {
    "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA",           "ONEDNN_CPU_ISA_HINTS",
    "DNNL_CPU_ISA_HINTS", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE",
    "GLIBC_TUNABLES"};

}  // namespace

void check_started_alike(MpiSession& session, std::string_view command,
                         std::vector<RankFact> options) {
  check_launch(session);
  std::vector<RankFact> facts = {
      {"the command", std::string(command)},
      {"the library of matrix products", matmul_library()},
      // Its functions round differently from version to version.
      {"the C library", fmt::format("glibc {}", gnu_get_libc_version())}};
  for (const char* name : kNumericVariables) {
    const char* value = std::getenv(name);
    facts.push_back({fmt::format("environment variable {}", name), value ? value : "not set"});
  }
  facts.insert(facts.end(), std::make_move_iterator(options.begin()),
               std::make_move_iterator(options.end()));
  same_on_all_ranks(*session.world(), facts,
                    "start all ranks alike (mpirun -x NAME hands on an environment variable)");
}

}  // namespace adagate
