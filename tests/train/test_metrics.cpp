// The lines of metrics.jsonl against figures worked out by hand.
#include <ctime>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"
#include "tests/support/packed_sums.h"
#include "tests/support/test_paths.h"
#include "tests/train/watched_run.h"
#include "train/metrics_writer.h"

namespace adagate {
namespace {

using namespace tiny;
using nlohmann::json;

// That many tokens in the sixth bin, which ends at 0.1, and in the last one.
std::vector<double> gaps(double sixth, double last) {
  std::vector<double> bins(kGapBins);
  bins[5] = sixth;
  bins.back() = last;
  return bins;
}

// Two layers of two experts that saw four tokens each.
RoutingStep routed() {
  RoutingStep routing(2, 2, {.loss = "switch", .coefficient = 0.5, .z_coefficient = 0.25}, {1, 3});
  routing.begin(1);
  RoutingSums sums;
  sums.tokens = 4;
  sums.entropy = 2;
  sums.log_sum_exp_squared = 8;
  sums.probability = {1.5, 2.5};
  sums.single = {1, 2};
  sums.assigned = {2, 3};
  sums.by_count = {0, 3, 1};
  sums.gap = gaps(3, 1);
  routing.ledger().add(0, test::packed_sums(sums, 2));
  routing.ledger().add(0, {.rows = 5, .rows_sent = 3, .bytes_sent = 192, .flops = 1000});
  sums.entropy = 1;
  sums.log_sum_exp_squared = 16;
  sums.single = {1, 0};
  sums.assigned = {4, 3};
  sums.by_count = {0, 1, 3};
  sums.gap = gaps(1, 3);
  routing.ledger().add(1, test::packed_sums(sums, 2));
  routing.ledger().add(1, {.rows = 7, .rows_sent = 5, .bytes_sent = 320, .flops = 1000});
  routing.end(*make_self_mesh().world);
  return routing;
}

StepReport some_report() {
  StepReport r;
  r.step = 3;
  r.total_steps = 9;
  r.epoch = 1;
  r.consumed_tokens = 96;
  r.learning_rate = 0.125;
  r.seconds = 0.5;
  r.flops = 4e9;
  r.peak_memory = 12345;
  r.peak_flops = 32e9;
  r.parameter_norm = 17.25;
  r.best = BestMetric{.kind = kLanguageMetrics[0], .value = 2.25, .step = 2};
  for (size_t p = 0; p < r.phases.size(); ++p) r.phases[p] = static_cast<double>(p) / 8;
  r.result.loss = 2.5;
  r.result.auxiliary_loss = 0.75;
  r.result.grad_norm = 1.5;
  r.result.targets = 30;
  r.result.tokens = 32;
  r.result.samples = 4;
  r.result.busy_mean = 0.25;
  r.result.busy_most = 0.375;
  return r;
}

std::vector<json> lines_of(const TempFolder& folder) {
  std::istringstream in(folder.read("metrics.jsonl"));
  std::vector<json> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
  return lines;
}

// "2026-01-31T23:59:59"
std::string utc_now() {
  std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%FT%T", &parts);
  return text;
}

void expect(const json& found, const json& expected) {
  for (const auto& [key, value] : expected.items()) {
    INFO(key << " of " << found.dump());
    REQUIRE(found.contains(key));
    if (value.is_number_float()) {
      CHECK(found.at(key).get<double>() == Approx(value.get<double>()).epsilon(1e-14));
    } else {
      CHECK(found.at(key) == value);
    }
  }
}

}  // namespace

TEST_CASE("metrics: the line of a step") {
  TempFolder folder;
  RoutingStep routing = routed();
  {
    MetricsWriter writer(folder.path() / "metrics.jsonl", 0);
    StepReport report = some_report();
    writer.on_step(report);  // of a dense model
    report.routing = &routing;
    report.result.skipped = true;
    writer.on_step(report);
  }
  std::vector<json> lines = lines_of(folder);
  REQUIRE(lines.size() == 2);
  for (const json& line : lines) {
    expect(line, {{"step", 3},
                  {"type", "step"},
                  {"epoch", 1},
                  {"consumed_tokens", 96},
                  {"loss", 2.5},
                  {"auxiliary_loss", 0.75},
                  {"grad_norm", 1.5},
                  {"learning_rate", 0.125},
                  {"targets", 30},
                  {"seconds", 0.5},
                  {"tokens_per_second", 64.0},
                  {"flops", 4e9},
                  {"gflops_per_second", 8.0},
                  {"peak_share", 0.25},
                  {"rank_time_imbalance", 1.5},
                  {"waiting_seconds", 0.125},
                  {"parameter_norm", 17.25},
                  {"best_validation_loss", 2.25},
                  {"peak_memory_bytes", 12345}});
    for (size_t p = 0; p < static_cast<size_t>(kPhaseCount); ++p)
      CHECK(line.at("time").at(std::string(kPhaseNames[p])) == static_cast<double>(p) / 8);
  }
  CHECK(lines[0].at("skipped") == false);
  CHECK(lines[1].at("skipped") == true);
  CHECK_FALSE(lines[0].contains("moe"));
  CHECK_FALSE(lines[0].contains("single_expert_share"));
  expect(lines[1],
         {{"single_expert_share", 0.5}, {"experts_per_token", 1.5}, {"rank_imbalance", 1.0}});
  const json& layers = lines[1].at("moe");
  REQUIRE(layers.size() == 2);
  // Switch loss: 0.5 * 2 * sum of (share of the assignments) * (mean probability).
  expect(layers[0], {{"block", 1},
                     {"single_expert_share", 0.75},
                     {"gap", gaps(3, 1)},
                     {"rank_imbalance", 1.0},
                     {"assignments", 5},
                     {"load", {2, 3}},
                     {"entropy", 0.5},
                     {"balance_loss", 0.5 * 2 * (2.0 / 5 * 1.5 / 4 + 3.0 / 5 * 2.5 / 4)},
                     {"z_loss", 0.25 * 8 / 4},
                     {"rows_sent", 3},
                     {"bytes_sent", 192}});
  expect(layers[1], {{"block", 3},
                     {"single_expert_share", 0.25},
                     {"gap", gaps(1, 3)},
                     {"assignments", 7},
                     {"load", {4, 3}},
                     {"entropy", 0.25},
                     {"balance_loss", 0.5 * 2 * (4.0 / 7 * 1.5 / 4 + 3.0 / 7 * 2.5 / 4)},
                     {"z_loss", 0.25 * 16 / 4},
                     {"rows_sent", 5},
                     {"bytes_sent", 320}});
}

TEST_CASE("metrics: the line of an evaluation") {
  TempFolder folder;
  RoutingStep routing = routed();
  {
    MetricsWriter writer(folder.path() / "metrics.jsonl", 0);
    EvaluationReport report{
        .step = 4, .metrics = language_figures(2), .targets = 50, .seconds = 0.25};
    writer.on_evaluation(report);
    report.routing = &routing;
    writer.on_evaluation(report);
  }
  std::vector<json> lines = lines_of(folder);
  REQUIRE(lines.size() == 2);
  for (const json& line : lines)
    expect(line, {{"step", 4},
                  {"type", "evaluation"},
                  {"validation_loss", 2.0},
                  {"validation_perplexity", 7.38905609893065},
                  {"validation_targets", 50},
                  {"validation_seconds", 0.25}});
  CHECK_FALSE(lines[0].contains("validation_single_expert_share"));
  CHECK(lines[1].at("validation_single_expert_share") == 0.5);
}

TEST_CASE("metrics: the lines of a checkpoint and of the end") {
  TempFolder folder;
  {
    MetricsWriter writer(folder.path() / "metrics.jsonl", 0);
    writer.on_step(some_report());
    writer.on_checkpoint({.step = 3, .path = "a/checkpoints/step-00000003", .seconds = 0.5});
    for (TrainingEnd end :
         {TrainingEnd::finished, TrainingEnd::loss_reached, TrainingEnd::stopped_by_signal})
      writer.on_end(end);
  }
  std::vector<json> lines = lines_of(folder);
  REQUIRE(lines.size() == 5);
  expect(lines[1], {{"step", 3},
                    {"type", "checkpoint"},
                    {"checkpoint", "step-00000003"},
                    {"checkpoint_seconds", 0.5}});
  expect(lines[2], {{"step", 3}, {"type", "end"}, {"reason", "finished"}});
  CHECK(lines[3].at("reason") == "loss_reached");
  CHECK(lines[4].at("reason") == "signal");
}

TEST_CASE("metrics: each line has its time, which goes on over a resume") {
  TempFolder folder;
  folder.write("metrics.jsonl",
               "{\"step\":1,\"elapsed_seconds\":1000.5}\n{\"step\":2,\"elapsed_seconds\":2000}\n");
  std::string before = utc_now();
  {
    MetricsWriter writer(folder.path() / "metrics.jsonl", 1);
    writer.on_step(some_report());
    writer.on_end(TrainingEnd::finished);
  }
  std::string after = utc_now();
  std::vector<json> lines = lines_of(folder);
  REQUIRE(lines.size() == 3);
  double last = 1000.5;
  for (size_t i : {1, 2}) {
    double elapsed = lines[i].at("elapsed_seconds");
    CHECK(elapsed >= last);
    CHECK(elapsed < last + 60);
    last = elapsed;
    std::string time = lines[i].at("timestamp");
    REQUIRE(time.size() == std::string("2026-01-31T23:59:59.123Z").size());
    CHECK(time[19] == '.');
    CHECK(time[23] == 'Z');
    CHECK(time.substr(0, 19) >= before);
    CHECK(time.substr(0, 19) <= after);
  }
}

TEST_CASE("metrics: a resumed run goes on after the lines up to its step") {
  TempFolder folder;
  folder.write("metrics.jsonl",
               "{\"step\":1,\"loss\":5}\n{\"step\":2,\"loss\":4}\n"
               "{\"step\":2,\"validation_loss\":4}\n{\"step\":3,\"loss\":3}\n"
               "{\"step\":3,\"validation_loss\":3}\n{\"step\":4,\"lo");
  MetricsWriter(folder.path() / "metrics.jsonl", 2).on_step(some_report());
  std::vector<json> lines = lines_of(folder);
  REQUIRE(lines.size() == 4);
  CHECK(lines[0] == json{{"step", 1}, {"loss", 5}});
  CHECK(lines[2] == json{{"step", 2}, {"validation_loss", 4}});
  CHECK(lines[3].at("step") == 3);
  CHECK(lines[3].at("loss") == 2.5);
}

TEST_CASE("metrics: how unevenly ranks are loaded") {
  std::optional<RoutingStep> told;
  run_ranks(2, [&](std::shared_ptr<Communicator> world) {
    RoutingStep routing(2, 2, {.loss = "paper", .coefficient = 0.5, .scope = "micro_batch"});
    routing.begin(2);
    RoutingSums sums{.single = {1, 1},
                     .assigned = {1, 1},
                     .probability = {1, 1},
                     .by_count = {0, 2, 0},
                     .tokens = 2};
    int64_t rank = world->rank();
    for (int64_t m : {0, 1}) {
      routing.begin_micro_batch(m);
      for (int64_t l : {0, 1}) routing.ledger().add(l, test::packed_sums(sums, 2));
      routing.ledger().add(0, {.rows = rank == 0 ? 3 : 1});
      routing.ledger().add(1, {.rows = rank == 0 ? 2 : 6 + 4 * m});
      routing.end_forward(*world);
    }
    routing.end(*world);
    if (rank == 0) told = routing;
  });
  REQUIRE(told);
  CHECK(told->layer(0).rank_rows == std::vector<double>{6, 2});
  CHECK(told->layer(1).rank_rows == std::vector<double>{4, 16});
  CHECK(rank_imbalance(told->layer(0)) == 1.5);
  CHECK(rank_imbalance(told->layer(1)) == 1.6);
  CHECK(rank_imbalance(*told) == Approx((6.0 + 16) / (4 + 10)));
}

TEST_CASE("metrics: a line tells that a run went on, and goes with the steps behind it") {
  TempFolder folder;
  auto path = folder.path() / "metrics.jsonl";
  auto resumed_at = [&](int64_t step, std::vector<ConfigChange> changes) {
    MetricsWriter writer(path, step);
    writer.on_resume({step, std::move(changes)});
  };
  folder.write("metrics.jsonl", "{\"step\":1,\"loss\":5}\n{\"step\":2,\"loss\":4}\n");
  resumed_at(2, {{"moe.gate.threshold", "0.1", "0.2"}});
  json line = lines_of(folder).at(2);
  CHECK(line.at("type") == "resume");
  CHECK(line.at("step") == 2);
  CHECK(line.at("changed") ==
        json::parse(R"({"moe.gate.threshold": {"from": "0.1", "to": "0.2"}})"));
  CHECK(line.contains("timestamp"));
  // Again from the same step: no step was trained under that change.
  resumed_at(2, {});
  REQUIRE(lines_of(folder).size() == 3);
  CHECK(lines_of(folder)[2].at("changed") == json::object());
  MetricsWriter(path, 2).on_step(some_report());  // step 3
  REQUIRE(lines_of(folder).size() == 3);
  resumed_at(2, {});
  MetricsWriter(path, 3);
  CHECK(lines_of(folder).size() == 3);
}

// Two ranks with an expert each, and tokens that take both: each token's row goes to the other
// rank once, and its result comes back.
TEST_CASE("metrics: the traffic between ranks that share experts") {
  for (auto [precision, bytes] : {std::pair{"fp32", 4}, {"bf16", 2}}) {
    INFO(precision);
    TempFolder folder;
    std::string of = precision;
    run_ranks(2, [&](std::shared_ptr<Communicator> world) {
      RunConfig config = run_config(folder);
      config.precision = of;
      config.moe.experts = 2;
      config.moe.gate.policy = "top2";
      config.moe.balance.loss = "switch";
      config.parallel.expert = 2;
      config.data.shuffle = false;
      std::unique_ptr<MetricsWriter> writer;
      if (world->rank() == 0)
        writer = std::make_unique<MetricsWriter>(folder.path() / "metrics.jsonl", 0);
      Trainer trainer(config, {}, world);
      if (writer) trainer.observe(*writer);
      trainer.run();
    });
    std::vector<json> lines = lines_of(folder);
    REQUIRE(lines.size() == 4);
    CHECK(lines.back().at("type") == "end");
    lines.pop_back();
    for (const json& line : lines) {
      int64_t tokens = line.at("step") == 3 ? 8 + 3 : 2 * 8;
      expect(line, {{"targets", tokens},
                    {"experts_per_token", 2.0},
                    {"single_expert_share", 0.0},
                    {"rank_imbalance", 1.0}});
      CHECK(line.at("rank_time_imbalance") >= 1.0);
      CHECK(line.at("rank_time_imbalance") <= 2.0);
      CHECK(line.at("waiting_seconds") >= 0.0);
      CHECK(line.at("waiting_seconds") <= line.at("seconds"));
      expect(line.at("moe").at(0), {{"assignments", 2 * tokens},
                                    {"rows_sent", tokens},
                                    {"bytes_sent", 2 * tokens * 8 * bytes}});
    }
  }
}

namespace {

// The names of an object's fields; those of objects inside as "moe.load".
void names_in(const json& item, const std::string& prefix, std::set<std::string>& names) {
  if (item.is_array())
    for (const json& part : item) names_in(part, prefix, names);
  if (!item.is_object()) return;
  for (const auto& [key, value] : item.items()) {
    names.insert(prefix + key);
    names_in(value, prefix + key + ".", names);
  }
}

}  // namespace

TEST_CASE("metrics: the page describes every field and no other") {
  TempFolder folder;
  std::set<std::string> written, described;
  for (bool moe : {false, true}) {
    RunConfig config = run_config(folder);
    config.moe.experts = moe ? 2 : 0;
    config.moe.every = 1;
    config.data.validation_share = 0.3;
    config.train.log_every = 2;
    config.train.peak_gflops = 100;
    config.checkpoint.save_at_end = true;
    config.output = folder.path(moe ? "moe" : "dense");
    Trainer trainer(config, {}, make_self_mesh().world);
    MetricsWriter writer(folder.path() / "metrics.jsonl", -1);
    trainer.observe(writer);
    trainer.run();
    writer.on_resume({3, {}});
    for (const json& line : lines_of(folder)) names_in(line, "", written);
  }
  // Rows of the tables: | `field` | type | ...
  std::ifstream page(source_path("docs/metrics.md"));
  std::regex row("\\| `([^`]+)` \\|.*");
  std::smatch match;
  for (std::string line; std::getline(page, line);)
    if (std::regex_match(line, match, row)) described.insert(match[1]);
  CHECK(written.size() > 40);
  CHECK(described == written);
}

}  // namespace adagate
