#include "apps/version.h"

#include <fmt/format.h>

#include "core/ops/matmul_library.h"
#include "parallel/mpi_version.h"

namespace adagate {

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
  // ADAGATE_*: set for this file alone by apps/CMakeLists.txt.
  return fmt::format("adagate {} ({})\n{}, {}\n{}, {}, {}\n", ADAGATE_VERSION, ADAGATE_GIT_HASH,
                     compiler, ADAGATE_BUILD_TYPE, matmul_library(), openmp, mpi_version());
}

}  // namespace adagate
