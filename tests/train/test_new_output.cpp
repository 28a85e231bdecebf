#include <fstream>

#include "core/base/error.h"
#include "core/io/atomic_file.h"
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
    CHECK(output.path() == root / name);
    for (const fs::path& made : make_directories(root / name / "cache"))
      output.made().push_back(made);
    folder.write(std::string(name) + "/cache/added", "x");
    output.made().push_back(root / name / "cache/added");
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

TEST_CASE("new output: what others have made in it meanwhile stays") {
  TempFolder folder;
  const fs::path& root = folder.path();
  auto world = make_self_communicator();
  {
    NewOutput output(*world, root / "sweep/a");
    for (const fs::path& made : make_directories(root / "sweep/a/cache"))
      output.made().push_back(made);
    folder.write("sweep/a/cache/theirs", "x");
    folder.write("sweep/b/checkpoints/step-00000004/manifest.json", "x");
  }
  CHECK(fs::exists(root / "sweep/a/cache/theirs"));
  CHECK(fs::exists(root / "sweep/b/checkpoints/step-00000004/manifest.json"));
  fs::remove_all(root / "sweep/a/cache");
  { NewOutput output(*world, root / "sweep/a/deep/er"); }
  CHECK(fs::exists(root / "sweep/a"));
  CHECK_FALSE(fs::exists(root / "sweep/a/deep"));
}
