#include "apps/version.h"

#include <fmt/format.h>

#include "core/ops/matmul_library.h"
#include "parallel/mpi_version.h"

namespace adagate {

// ADAGATE_*: set for this file alone by apps/CMakeLists.txt.
std::string program_version() {
  return fmt::format("adagate {} ({})", ADAGATE_VERSION, ADAGATE_GIT_HASH);
}

std::string version_text() {
#ifdef _OPENMP
  std::string openmp = fmt::format("OpenMP {}", _OPENMP);
#else
  std::string openmp = "no OpenMP";
#endif
#ifdef __clang__
  std::string compiler = fmt::format("clang {}", __clang_version__);
#else
  std::string compiler = fmt::format("g++ {}", __VERSION__);
#endif
  return fmt::format("{}\n{}, {}\n{}, {}, {}\n", program_version(), compiler, ADAGATE_BUILD_TYPE,
                     matmul_library(), openmp, mpi_version());
}

}  // namespace adagate
