// The lines that a person watching a run sees.
#include <cstdio>
#include <unistd.h>

#include "parallel/communicator.h"
#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"
#include "train/progress.h"

using namespace adagate;

namespace {

// What `work` prints, which finds standard output to be a file.
template <class F>
std::string printed(F&& work) {
  TempFolder folder;
  std::fflush(stdout);
  int before = dup(STDOUT_FILENO);
  REQUIRE(std::freopen(folder.path("out").c_str(), "w", stdout));
  work();
  std::fflush(stdout);
  dup2(before, STDOUT_FILENO);
  close(before);
  return folder.read("out");
}

StepReport report_of(int64_t step) {
  StepReport r;
  r.step = step;
  r.total_steps = 7200;
  r.seconds = 2;
  r.learning_rate = 0.00025;
  r.result.loss = 3.25;
  r.result.grad_norm = 1.5;
  r.result.tokens = 64000;
  return r;
}

}  // namespace

TEST_CASE("progress: durations and counts") {
  CHECK(format_duration(0) == "0:00:00");
  CHECK(format_duration(59.6) == "0:01:00");
  CHECK(format_duration(3599) == "0:59:59");
  CHECK(format_duration(3723) == "1:02:03");
  CHECK(format_duration(100 * 3600.0 + 61) == "100:01:01");
  CHECK(format_duration(-5) == "0:00:00");
  CHECK(format_count(812) == "812");
  CHECK(format_count(9999) == "9999");
  CHECK(format_count(12345) == "12.3k");
  CHECK(format_count(1234567) == "1.23M");
  CHECK(format_count(7.5e9) == "7.50G");
}

TEST_CASE("progress: the first, the last, each n-th and each skipped step has a line") {
  std::string text = printed([] {
    ProgressPrinter printer(7200);  // no step between but the last
    printer.on_step(report_of(1));
    printer.on_step(report_of(2));
    StepReport skipped = report_of(3);
    skipped.result.skipped = true;
    printer.on_step(skipped);
    printer.on_step(report_of(7200));
    printer.on_evaluation({.step = 7200, .loss = 2});
    printer.on_checkpoint(7200, "run/checkpoints/step-00007200");
    printer.on_end(TrainingEnd::loss_reached);
    printer.on_end(TrainingEnd::stopped_by_signal);
  });
  std::string figures = "  loss 3.2500  lr 2.50e-04  norm 1.500  32.0k tokens/s";
  CHECK(text == "step      1/7200" + figures +
                    "  ETA 3:59:58\n"
                    "step      3/7200" +
                    figures +
                    "  SKIPPED (gradient not finite)  ETA 3:59:54\n"
                    "step   7200/7200" +
                    figures +
                    "  ETA 0:00:00\n"
                    "step   7200  validation loss 2.0000  perplexity 7.39\n"
                    "step   7200  saved run/checkpoints/step-00007200\n"
                    "the loss asked for is reached\n"
                    "stopped by a signal; go on with --resume=auto\n");
}
