// The lines that a person watching a run sees.
#include <cmath>
#include <cstdio>
#include <map>
#include <unistd.h>

#include "parallel/communicator.h"
#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"
#include "train/progress.h"
#include "train/task_table.h"
#include "train/terminal.h"

using namespace adagate;

namespace {

const BestMetric kBest{.kind = kLanguageMetrics[0], .value = 1.75, .step = 7000};

Metrics language_figures(double loss) {
  double sum = 4 * loss;
  return metrics_of(kLanguageMetrics, language_metrics(std::span(&sum, 1), 4));
}

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
    printer.on_evaluation({.step = 7200, .metrics = language_figures(2)});
    printer.on_checkpoint({.step = 7200, .path = "run/checkpoints/step-00007200"});
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
                    "step   7200  saved run/checkpoints/step-00007200\n");
}

TEST_CASE("progress: the end tells what the run came to and where it is") {
  auto run = [](TrainingEnd end) {
    return printed([end] {
      ProgressPrinter printer(1000, "run/metrics.jsonl");
      for (int64_t step : {7198, 7199}) {
        StepReport report = report_of(step);
        report.peak_memory = int64_t{300} << 20;
        report.best = kBest;
        printer.on_step(report);
      }
      printer.on_evaluation({.step = 7199, .metrics = language_figures(2), .best = kBest});
      printer.on_checkpoint({.step = 7199, .path = "run/checkpoints/step-00007199"});
      printer.on_end(end);
    });
  };
  std::string finished = run(TrainingEnd::finished);
  std::string summary =
      "steps           7199 of 7200, 2 of them now\n"
      "time            0:00:00, 0:00:04 of it in steps\n"
      "tokens          128.0k, 32.0k a second\n"
      "loss            3.2500\n"
      "validation loss 2.0000 at step 7199\n"
      "best            1.7500 at step 7000\n"
      "peak memory     300 MiB of tensors on rank 0\n"
      "metrics         run/metrics.jsonl\n"
      "checkpoint      run/checkpoints/step-00007199\n";
  CHECK_THAT(finished, Catch::Contains("step-00007199\n" + summary));
  CHECK_THAT(run(TrainingEnd::loss_reached),
             Catch::Contains("the loss asked for is reached\n" + summary));
  CHECK_THAT(run(TrainingEnd::stopped_by_signal),
             Catch::Contains("stopped by a signal; go on with --resume=auto\n" + summary));
  // A run that had nothing to do has nothing to tell.
  CHECK(printed([] { ProgressPrinter(1).on_end(TrainingEnd::finished); }).empty());
}

TEST_CASE("progress: the time to come counts evaluations and checkpoints") {
  RemainingTime time;
  CHECK(time.tokens_per_second() == 0);
  time.add_step(50, 100);  // warms up
  CHECK(time.seconds(10, 3, 3) == 500);
  for (int i = 0; i < 40; ++i) time.add_step(i % 2 ? 1 : 3, 100);
  CHECK(time.tokens_per_second() == Approx(50));
  CHECK(time.seconds(10, 0, 0) == Approx(20));
  time.add_evaluation(30);
  time.add_checkpoint(7);
  CHECK(time.seconds(10, 3, 2) == Approx(20 + 90 + 14));
  for (int i = 0; i < 500; ++i) time.add_step(4, 100);  // slower from now on
  CHECK(time.seconds(10, 0, 0) == Approx(40).epsilon(0.01));
}

TEST_CASE("progress: a line that does not fit loses what matters least") {
  std::vector<StatusField> fields{
      {"step 1/9", 9}, {"lr 2e-4", 1}, {"norm 1.5", 2}, {"ETA 0:10", 5}};
  CHECK(status_line(fields) == "step 1/9  lr 2e-4  norm 1.5  ETA 0:10");
  CHECK(status_line(fields, 37) == status_line(fields));
  CHECK(status_line(fields, 36) == "step 1/9  norm 1.5  ETA 0:10");
  CHECK(status_line(fields, 27) == "step 1/9  ETA 0:10");
  CHECK(status_line(fields, 17) == "step 1/9");
  CHECK(status_line(fields, 3) == "ste");
  CHECK(status_line(fields, -1).empty());
}

TEST_CASE("progress: where no line renews itself") {
  auto wanted = [](std::map<std::string, std::string> variables) {
    return renewing_lines_wanted([&](const char* name) {
      auto it = variables.find(name);
      return it == variables.end() ? nullptr : it->second.c_str();
    });
  };
  CHECK(wanted({{"TERM", "xterm"}}));
  CHECK(wanted({{"TERM", "xterm"}, {"NO_COLOR", ""}, {"CI", "false"}}));
  CHECK_FALSE(wanted({}));
  CHECK_FALSE(wanted({{"TERM", "dumb"}}));
  CHECK_FALSE(wanted({{"TERM", "xterm"}, {"NO_COLOR", "1"}}));
  CHECK_FALSE(wanted({{"TERM", "xterm"}, {"CI", "true"}}));
}
