// YAML text as a run's configuration.
#include "tests/fuzz/fuzz.h"
#include "train/config/run_config.h"
#include "train/config/yaml_loader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace adagate;
  fuzz::expect_only_error([&] {
    ConfigTree tree;
    tree.add_text(std::string(reinterpret_cast<const char*>(data), size), "fuzz.yaml");
    auto config = read_config<RunConfig>(tree);
    validate(config, 2);
  });
  return 0;
}
