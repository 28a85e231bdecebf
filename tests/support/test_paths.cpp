#include "tests/support/test_paths.h"

namespace adagate {

std::string source_path(const std::string& path) {
  return std::string(ADAGATE_SOURCE_DIR "/") + path;
}

}  // namespace adagate
