#include "train/earlier_run.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/io/atomic_file.h"
#include "train/config/config_writer.h"
#include "train/config/yaml_loader.h"
#include "train/run_directory.h"

namespace adagate {
namespace fs = std::filesystem;
namespace {

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

std::string text_of(const fs::path& path) {
  return is_there(path) ? read_text_file(path, "file") : "";
}

std::optional<RunConfig> config_in(const std::string& text) {
  try {
    ConfigTree tree;
    tree.add_text(text, kConfigFile);
    return read_config<RunConfig>(tree);
  } catch (const Error&) {
    return std::nullopt;
  }
}

// Whether two configurations say the same but for where to go on from.
bool same_config(const std::string& left, const std::string& right) {
  auto a = config_in(left), b = config_in(right);
  if (!a || !b) return false;
  a->checkpoint.resume = b->checkpoint.resume;
  return write_yaml(*a) == write_yaml(*b);
}

constexpr std::string_view kMark = "written by adagate";  // in a comment of the first line

std::string_view first_line(std::string_view text) {
  return text.substr(0, text.find('\n'));
}

bool is_marked(std::string_view text) {
  return text.starts_with('#') && first_line(text).find(kMark) != std::string_view::npos;
}

// Nothing in the text but what writing its values would give.
bool says_values_alone(const std::string& text) {
  auto config = config_in(text);
  return is_marked(text) || (config && write_yaml(*config) == text);
}

// Also by a version of other comments.
bool is_own_config(const std::string& text) {
  static const std::string kFirst = std::string(first_line(write_yaml(RunConfig{})));
  auto comment = [](std::string_view line) {
    return line.substr(std::min(line.find("  # "), line.size()));
  };
  return says_values_alone(text) ||
         (text.starts_with("seed: ") && comment(first_line(text)) == comment(kFirst));
}

// The last step that metrics tell of; nothing when they are no metrics.
std::optional<int64_t> last_step_of(const fs::path& metrics) {
  std::ifstream in(metrics, std::ios::binary);
  std::string line;
  int64_t last = 0;
  for (bool first = true; std::getline(in, line); first = false) {
    auto item = nlohmann::json::parse(line, nullptr, false);
    bool whole = item.is_object() && item.contains("step") && item["step"].is_number_integer();
    bool torn = in.eof() && line.starts_with('{');  // by a kill
    if (first && !whole && !torn) return std::nullopt;
    if (whole) last = item["step"].get<int64_t>();
  }
  return last;
}

[[noreturn]] void fail_for_results(const OutputUse& use) {
  fail(
      "output {} holds results of an earlier run, {} and {}: choose another --output, or let them "
      "go with --overwrite",
      use.output.string(), kMetricsFile, kConfigFile);
}

}  // namespace

std::vector<fs::path> inputs_of(const RunConfig& config) {
  std::vector<fs::path> inputs;
  for (const std::string& file :
       {config.data.train, config.data.validation, config.checkpoint.initial_weights}) {
    if (!file.empty()) inputs.emplace_back(file);
  }
  if (config.data.tokenizer == "byte") return inputs;
  std::error_code error;
  inputs.emplace_back(config.data.tokenizer);
  for (const auto& entry : fs::directory_iterator(config.data.tokenizer, error))
    inputs.push_back(entry.path());
  return inputs;
}

void check_no_input_goes(const OutputUse& use) {
  fs::path config = use.output / kConfigFile, metrics = use.output / kMetricsFile;
  for (const fs::path& path : {config, metrics}) {
    if (!is_there(path)) continue;
    std::error_code error;
    check(fs::is_regular_file(fs::symlink_status(path, error)),
          "{} is where the run writes, but it is a link or no file: choose another --output, or "
          "move it away",
          path.string());
    bool input = std::any_of(use.inputs.begin(), use.inputs.end(), [&](const fs::path& file) {
      return fs::equivalent(file, path, error);
    });
    if (!input) continue;
    std::string text = path == config ? text_of(config) : "";
    bool same = path == config && says_values_alone(text) &&
                (use.goes_on || same_config(text, use.config_yaml));
    check(same, "{} is read by this run, which would write over it: choose another --output",
          path.string());
  }
  check(!is_there(config) || is_own_config(text_of(config)),
        "{} is not one that adagate wrote: choose another --output, or move it away",
        config.string());
  check(!is_there(metrics) || last_step_of(metrics),
        "{} is not one that adagate wrote: choose another --output, or move it away",
        metrics.string());
}

void check_no_checkpoint_goes(const OutputUse& use, const std::optional<fs::path>& from) {
  auto later = later_checkpoints(use.output / "checkpoints", from);
  if (use.overwrite || later.empty()) return;
  std::string output = use.output.string();
  check(from.has_value(),
        "output {} holds checkpoints of an earlier run: go on with --resume=auto, choose another "
        "--output, or let them go with --overwrite",
        output);
  fail(
      "output {} holds checkpoints up to {}, which a run from {} would leave behind: go on from "
      "them with --resume=auto, choose another --output, or let them go with --overwrite",
      output, later.back().filename().string(), from->string());
}

void check_no_result_goes(const OutputUse& use) {
  if (use.overwrite || use.goes_on) return;
  fs::path metrics = use.output / kMetricsFile;
  std::error_code error;
  if (!is_there(metrics) || fs::file_size(metrics, error) == 0) return;
  if (use.starts_again && same_config(text_of(use.output / kConfigFile), use.config_yaml)) return;
  fail_for_results(use);
}

void check_unfinished(const OutputUse& use, int64_t total_steps) {
  if (!use.starts_again || use.overwrite) return;
  if (last_step_of(use.output / kMetricsFile).value_or(0) >= total_steps) fail_for_results(use);
}

}  // namespace adagate
