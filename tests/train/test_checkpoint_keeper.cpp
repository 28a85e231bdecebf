// Which checkpoints stay while steps succeed and while they are skipped.
#include "core/base/error.h"
#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"
#include "train/checkpoint_keeper.h"
#include "train/run_directory.h"

namespace adagate {
namespace {

namespace fs = std::filesystem;

struct Run {
  TempFolder folder;
  CheckpointKeeper keeper{folder.path(), 2, true};

  fs::path write(int64_t step) {
    folder.write(step_name(step) + "/manifest.json", "{}");
    return folder.path() / step_name(step);
  }
  void save(int64_t step) { keeper.saved(write(step)); }
  void take(int64_t good) {
    for (int64_t i = 0; i < good; ++i) keeper.on_step(false);
  }
  void skip(int64_t steps) {
    for (int64_t i = 0; i < steps; ++i) keeper.on_step(true);
  }
  std::vector<int64_t> kept() const {
    std::vector<int64_t> steps;
    for (auto& [step, path] : complete_checkpoints(folder.path())) steps.push_back(step);
    return steps;
  }
};

using Steps = std::vector<int64_t>;

}  // namespace

TEST_CASE("keeper: an older checkpoint goes once a step from the newest has succeeded") {
  Run run;
  for (int64_t step : {1, 2, 3}) {
    run.take(1);
    run.save(step);
  }
  CHECK(run.kept() == Steps{1, 2, 3});
  run.take(1);
  CHECK(run.kept() == Steps{2, 3});
  run.save(4);
  run.keeper.ended();  // no step follows that could tell
  CHECK(run.kept() == Steps{3, 4});
}

TEST_CASE("keeper: while steps are skipped nothing goes, and the way back is the proven one") {
  Run run;
  for (int64_t step : {1, 2}) {
    run.take(1);
    run.save(step);
  }
  run.take(1);
  run.save(3);  // no step from it succeeds
  run.skip(10);
  CHECK(run.keeper.skipped_in_a_row() == 10);
  run.save(13);  // a stop by a signal
  run.keeper.ended();
  CHECK(run.kept() == Steps{1, 2, 3, 13});
  run.skip(9);
  CHECK_THROWS_WITH(run.skip(1), Catch::Contains("not finite in 20 steps in a row") &&
                                     Catch::Contains((run.folder.path() / step_name(2)).string()));
  CHECK(run.kept() == Steps{1, 2, 3, 13});
}

TEST_CASE("keeper: where no step succeeded from any, the way back is the one before the row") {
  Run run;
  run.save(1);
  run.skip(10);
  run.save(11);
  run.skip(9);
  CHECK_THROWS_WITH(run.skip(1), Catch::Contains((run.folder.path() / step_name(1)).string()));
}

TEST_CASE("keeper: a good step ends the row, and what keep says holds again") {
  Run run;
  run.write(1);
  run.keeper.resumed(run.write(2), 0);
  run.skip(19);
  run.take(1);
  CHECK(run.keeper.skipped_in_a_row() == 0);
  run.save(22);
  run.skip(19);
  CHECK(run.kept() == Steps{1, 2, 22});
  run.take(1);
  CHECK(run.kept() == Steps{2, 22});
}

TEST_CASE("keeper: without any checkpoint the message says to start anew") {
  Run run;
  run.skip(19);
  CHECK_THROWS_WITH(run.skip(1), Catch::Contains("start anew with a lower"));
}

TEST_CASE("keeper: only one rank removes") {
  Run run;
  CheckpointKeeper other(run.folder.path(), 1, false);
  for (int64_t step : {1, 2}) other.saved(run.write(step));
  other.on_step(false);
  CHECK(run.kept() == Steps{1, 2});
}

}  // namespace adagate
