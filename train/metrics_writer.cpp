#include "train/metrics_writer.h"

#include <cerrno>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/io/atomic_file.h"

namespace adagate {
namespace {

using nlohmann::ordered_json;

// Lines of steps up to `last`; a torn last line of a killed run goes too.
std::string lines_until(const std::filesystem::path& path, int64_t last) {
  std::ifstream in(path);
  std::string kept, line;
  while (std::getline(in, line)) {
    auto item = nlohmann::json::parse(line, nullptr, false);
    if (item.is_object() && item.value("step", INT64_MAX) <= last) kept += line + "\n";
  }
  return kept;
}

ordered_json routing_json(const RoutingStep& routing) {
  ordered_json layers = ordered_json::array();
  for (int64_t l = 0; l < routing.layers(); ++l) {
    LayerRouting layer = routing.layer(l);
    layers.push_back({{"single_expert_share", layer.share_with(1)},
                      {"assignments", layer.assignments()},
                      {"load", layer.sums.assigned},
                      {"entropy", layer.mean_entropy()},
                      {"balance_loss", layer.balance_loss},
                      {"z_loss", layer.z_loss},
                      {"rows_sent", layer.rows_sent},
                      {"bytes_sent", layer.bytes_sent}});
  }
  return layers;
}

}  // namespace

MetricsWriter::MetricsWriter(const std::filesystem::path& path, int64_t resumed_step)
    : path_(path) {
  std::error_code error;
  std::string kept = std::filesystem::exists(path, error) ? lines_until(path, resumed_step) : "";
  write_file_atomically(path, kept);
  file_ = std::fopen(path.c_str(), "a");
  if (!file_) fail_to_write(path, errno);
}

MetricsWriter::~MetricsWriter() {
  if (file_) std::fclose(file_);
}

void MetricsWriter::write(const std::string& line) {
  bool ok = std::fwrite(line.data(), 1, line.size(), file_) == line.size();
  if (!ok || std::fflush(file_) != 0) fail_to_write(path_, errno);
}

void MetricsWriter::on_step(const StepReport& r) {
  ordered_json line = {{"step", r.step},
                       {"epoch", r.epoch},
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
                       {"peak_memory_bytes", r.peak_memory}};
  if (r.routing) {
    line["single_expert_share"] = single_expert_share(*r.routing);
    line["experts_per_token"] = experts_per_token(*r.routing);
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
  ordered_json line = {{"step", r.step},
                       {"validation_loss", r.loss},
                       {"validation_perplexity", std::exp(r.loss)},
                       {"validation_targets", r.targets},
                       {"validation_seconds", r.seconds}};
  if (r.routing) line["validation_single_expert_share"] = single_expert_share(*r.routing);
  write(line.dump() + "\n");
}

}  // namespace adagate
