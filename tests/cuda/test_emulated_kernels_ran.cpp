// Every __global__ function of the sources has run on the emulator once all tests have.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "tests/cuda/emulator/runtime.h"
#include "tests/support/catch.h"
#include "tests/support/test_paths.h"

using namespace adagate;
namespace fs = std::filesystem;

namespace {

std::set<std::string> kernels_in(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  const std::string source = text.str();
  // The name is the last word before the parameters; bounds of a launch may stand in between.
  static const std::regex declared(
      R"(__global__\s+(?:void\s+)?(?:__launch_bounds__\([^)]*\)\s*)?(?:void\s+)?(\w+)\()");
  std::set<std::string> names;
  for (std::sregex_iterator i(source.begin(), source.end(), declared), end; i != end; ++i)
    names.insert((*i)[1]);
  return names;
}

}  // namespace

// Named so that it runs last: cases run in the order of their files, and of their names where they
// are asked to.
TEST_CASE("every kernel of the CUDA backend has run here") {
  auto ran = emulator::kernels_run();
  if (ran.size() < 40) return;  // only some of the tests were asked for
  int64_t kernels = 0;
  for (const auto& entry : fs::directory_iterator(source_path("core/ops/cuda")))
    for (const std::string& name : kernels_in(entry.path())) {
      INFO(entry.path().filename().string() << ": " << name);
      CHECK(ran[name] > 0);
      ++kernels;
    }
  CHECK(kernels > 40);
}
