#include "core/ops/matmul_library.h"

#include <Eigen/Core>
#include <fmt/format.h>
#ifdef ADAGATE_HAVE_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#endif

namespace adagate {

std::string matmul_library() {
#ifdef ADAGATE_HAVE_ONEDNN
  const dnnl_version_t* v = dnnl_version();
  return fmt::format("oneDNN {}.{}.{}", v->major, v->minor, v->patch);
#else
  return fmt::format("Eigen {}.{}.{}", EIGEN_WORLD_VERSION, EIGEN_MAJOR_VERSION,
                     EIGEN_MINOR_VERSION);
#endif
}

}  // namespace adagate
