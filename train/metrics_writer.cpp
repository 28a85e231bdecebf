#include "train/metrics_writer.h"

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <fmt/format.h>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/io/atomic_file.h"

namespace adagate {
namespace {

using nlohmann::ordered_json;

constexpr const char* kResume = "resume";

struct Kept {
  std::string lines;
  double elapsed = 0;
};

// Lines of steps up to `last`; a torn last line of a killed run goes too.
Kept lines_until(const std::filesystem::path& path, int64_t last) {
  std::ifstream in(path);
  Kept kept;
  std::string line;
  while (std::getline(in, line)) {
    auto item = nlohmann::json::parse(line, nullptr, false);
    if (!item.is_object()) continue;
    int64_t step = item.value("step", INT64_MAX);
    // That a run went on from the last step tells of those behind it.
    bool stays = item.value("type", "") == kResume ? step < last : step <= last;
    if (!stays) continue;
    kept.lines += line + "\n";
    if (auto seconds = item.find("elapsed_seconds"); seconds != item.end() && seconds->is_number())
      kept.elapsed = seconds->get<double>();
  }
  return kept;
}

// Now, in UTC: "2026-01-31T23:59:59.123Z".
std::string timestamp() {
  using namespace std::chrono;
  auto now = floor<milliseconds>(system_clock::now());
  std::time_t seconds = system_clock::to_time_t(now);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts);
  return fmt::format("{}.{:03}Z", text, now.time_since_epoch().count() % 1000);
}

// What every line begins with.
ordered_json line_of(const char* type, int64_t step, double elapsed) {
  return {{"step", step}, {"type", type}, {"timestamp", timestamp()}, {"elapsed_seconds", elapsed}};
}

void add_best(ordered_json& line, const std::optional<BestMetric>& best) {
  if (best) line[fmt::format("best_validation_{}", best->kind.name)] = best->value;
}

ordered_json routing_json(const RoutingStep& routing) {
  ordered_json layers = ordered_json::array();
  for (int64_t l = 0; l < routing.layers(); ++l) {
    LayerRouting layer = routing.layer(l);
    layers.push_back({{"block", layer.block},
                      {"single_expert_share", layer.share_with(1)},
                      {"assignments", layer.assignments()},
                      {"load", layer.sums.assigned},
                      {"gap", layer.sums.gap},
                      {"entropy", layer.mean_entropy()},
                      {"balance_loss", layer.balance_loss},
                      {"z_loss", layer.z_loss},
                      {"rank_imbalance", rank_imbalance(layer)},
                      {"rows_sent", layer.rows_sent},
                      {"bytes_sent", layer.bytes_sent}});
  }
  return layers;
}

const char* name_of(TrainingEnd end) {
  switch (end) {
    case TrainingEnd::loss_reached:
      return "loss_reached";
    case TrainingEnd::stopped_by_signal:
      return "signal";
    default:
      return "finished";
  }
}

}  // namespace

MetricsWriter::MetricsWriter(const std::filesystem::path& path, int64_t resumed_step)
    : path_(path) {
  std::error_code error;
  Kept kept = std::filesystem::exists(path, error) ? lines_until(path, resumed_step) : Kept{};
  earlier_seconds_ = kept.elapsed;
  step_ = std::max<int64_t>(0, resumed_step);
  write_file_atomically(path, kept.lines);
  file_ = std::fopen(path.c_str(), "a");
  if (!file_) fail_to_write(path, errno);
}

MetricsWriter::~MetricsWriter() {
  if (file_) std::fclose(file_);
}

void MetricsWriter::write(const std::string& line) {
  wrote_ = true;
  bool ok = std::fwrite(line.data(), 1, line.size(), file_) == line.size();
  if (!ok || std::fflush(file_) != 0) fail_to_write(path_, errno);
}

double MetricsWriter::elapsed() const {
  std::chrono::duration<double> now = std::chrono::steady_clock::now() - start_;
  return earlier_seconds_ + now.count();
}

void MetricsWriter::on_resume(const ResumeReport& r) {
  ordered_json changed = ordered_json::object();
  for (const ConfigChange& c : r.changes) changed[c.key] = {{"from", c.before}, {"to", c.now}};
  ordered_json line = line_of(kResume, r.step, elapsed());
  line["changed"] = changed;
  write(line.dump() + "\n");
}

void MetricsWriter::on_step(const StepReport& r) {
  step_ = r.step;
  ordered_json line = line_of("step", r.step, elapsed());
  line.update({{"epoch", r.epoch},
               {"consumed_tokens", r.consumed_tokens},
               {"loss", r.result.loss},
               {"auxiliary_loss", r.result.auxiliary_loss},
               {"grad_norm", r.result.grad_norm},
               {"learning_rate", r.learning_rate},
               {"targets", r.result.targets},
               {"skipped", r.result.skipped},
               {"seconds", r.seconds},
               {"tokens_per_second", static_cast<double>(r.result.tokens) / r.seconds},
               {"flops", r.flops},
               {"gflops_per_second", r.flops / r.seconds * 1e-9},
               {"rank_time_imbalance",
                r.result.busy_mean > 0 ? r.result.busy_most / r.result.busy_mean : 1.0},
               {"waiting_seconds", r.result.busy_most - r.result.busy_mean},
               {"peak_memory_bytes", r.peak_memory}});
  if (r.peak_flops > 0) line["peak_share"] = r.flops / r.seconds / r.peak_flops;
  if (r.parameter_norm) line["parameter_norm"] = *r.parameter_norm;
  add_best(line, r.best);
  if (r.routing) {
    line["single_expert_share"] = single_expert_share(*r.routing);
    line["experts_per_token"] = experts_per_token(*r.routing);
    line["rank_imbalance"] = rank_imbalance(*r.routing);
    line["moe"] = routing_json(*r.routing);
  }
  ordered_json time = ordered_json::object();
  for (int p = 0; p < kPhaseCount; ++p) {
    time[std::string(kPhaseNames[p])] = r.phases[static_cast<size_t>(p)];
  }
  line["time"] = time;
  write(line.dump() + "\n");
}

void MetricsWriter::on_evaluation(const EvaluationReport& r) {
  ordered_json line = line_of("evaluation", r.step, elapsed());
  for (const Metric& metric : r.metrics)
    line[fmt::format("validation_{}", metric.kind.name)] = metric.value;
  line.update({{"validation_targets", r.targets}, {"validation_seconds", r.seconds}});
  add_best(line, r.best);
  if (r.routing) line["validation_single_expert_share"] = single_expert_share(*r.routing);
  write(line.dump() + "\n");
}

void MetricsWriter::on_checkpoint(const CheckpointReport& r) {
  ordered_json line = line_of("checkpoint", r.step, elapsed());
  line.update({{"checkpoint", r.path.filename().string()}, {"checkpoint_seconds", r.seconds}});
  write(line.dump() + "\n");
}

void MetricsWriter::on_end(TrainingEnd end) {
  if (!wrote_) return;  // there was nothing to train: the file stays that of the finished run
  ordered_json line = line_of("end", step_, elapsed());
  line["reason"] = name_of(end);
  write(line.dump() + "\n");
}

}  // namespace adagate
