// Lines as --set options, each on top of those before.
#include <sstream>

#include "tests/fuzz/fuzz.h"
#include "train/config/run_config.h"
#include "train/config/yaml_loader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace adagate;
  fuzz::expect_only_error([&] {
    std::istringstream lines(std::string(reinterpret_cast<const char*>(data), size));
    ConfigTree tree;
    std::string line;
    while (std::getline(lines, line)) tree.add_override(line);
    auto config = read_config<RunConfig>(tree);
    validate(config, 3);
  });
  return 0;
}
