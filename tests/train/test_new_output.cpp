#include <fstream>

#include "core/base/error.h"
#include "parallel/communicator.h"
#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"
#include "train/new_output.h"

namespace fs = std::filesystem;
using namespace adagate;

TEST_CASE("new output: what a run that never started has made goes, the rest stays") {
  TempFolder folder;
  const fs::path& root = folder.path();
  fs::create_directories(root / "old/cache");
  std::ofstream(root / "old/cache/kept") << "x";
  auto world = make_self_communicator();
  for (const char* name : {"old", "new/inner"}) {
    NewOutput output(*world, root / name);
    CHECK(output.cache() == root / name / "cache");
    fs::create_directories(output.cache());
    std::ofstream(output.cache() / "added") << "x";
    CHECK(fs::exists(root / name / "cache/added"));
  }
  CHECK(fs::exists(root / "old/cache/kept"));
  CHECK_FALSE(fs::exists(root / "old/cache/added"));
  CHECK_FALSE(fs::exists(root / "new"));
  {
    NewOutput output(*world, root / "new");
    std::ofstream(root / "new/file") << "x";
    auto lock = output.keep();
    REQUIRE(lock);
    // Another process's lock looks the same as one of another open file.
    CHECK_THROWS_WITH(NewOutput(*world, root / "new"), Catch::Contains("in use by another run"));
  }
  CHECK(fs::exists(root / "new/file"));
  CHECK_NOTHROW(DirectoryLock(root / "new"));
}
