// adagate inspect: what a file or directory holds.
#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/options.h"
#include "core/base/bytes_text.h"
#include "core/base/counted.h"
#include "core/base/error.h"
#include "core/base/threads.h"
#include "core/device/backend.h"
#include "core/device/device_choice.h"
#include "core/io/file_kind.h"
#include "core/ops/matmul_library.h"
#include "data/token_file.h"
#include "train/checkpoint_report.h"
#include "train/file_report.h"
#include "train/json_text.h"
#include "train/saved_model.h"

namespace adagate {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string path;
  std::string tokenizer;
  bool devices = false, json = false;
};

// What `device:` and --device may choose from.
Report describe_devices() {
  Report report{.text = fmt::format("cpu: {}; matrix products by {}\n",
                                    counted(max_threads(), "thread"), matmul_library()),
                .json = {{"cpu", {{"threads", max_threads()}, {"products", matmul_library()}}},
                         {"cuda", nlohmann::ordered_json::array()}}};
  std::string reason = why_no_cuda();
  if (!reason.empty()) {
    report.text += fmt::format("cuda: none: {}\n", reason);
    report.json["cuda_unavailable"] = reason;
    return report;
  }
  for (int i = 0; i < devices_of(DeviceKind::cuda); ++i) {
    DeviceFacts facts = backend_of({DeviceKind::cuda, i}).facts(i);
    report.text += fmt::format("cuda {}: {}, {} of {} free\n", i, facts.name,
                               bytes_text(facts.free_bytes), bytes_text(facts.memory_bytes));
    report.json["cuda"].push_back({{"name", facts.name},
                                   {"memory_bytes", facts.memory_bytes},
                                   {"free_bytes", facts.free_bytes}});
  }
  return report;
}

Report describe_token_file(const Options& options) {
  TokenFile file(options.path);
  const TokenView& view = file.view();
  view.verify();
  std::string hash = fmt::format("{:016x}", view.tokenizer_hash());
  Report report{
      .text = fmt::format("{}: token file, sound\n  tokens      {}\n  documents   {}\n"
                          "  tokenizer   {} (hash {})\n  vocabulary  {} ({} bytes per token)\n",
                          options.path, view.size(), view.documents(), view.tokenizer_name(), hash,
                          view.vocabulary(), view.token_width()),
      .json = {{"path", options.path},
               {"kind", "token_file"},
               {"tokens", view.size()},
               {"documents", view.documents()},
               {"tokenizer", view.tokenizer_name()},
               {"tokenizer_hash", hash},
               {"vocabulary", view.vocabulary()},
               {"token_bytes", view.token_width()}}};
  if (options.tokenizer.empty()) return report;
  auto tokenizer = load_tokenizer(options.tokenizer);
  view.check_tokenizer(*tokenizer);
  std::vector<int32_t> ids(static_cast<size_t>(std::min<int64_t>(view.size(), 100)));
  view.read(0, ids);
  report.text += fmt::format("  it begins\n{}\n", tokenizer->decode(ids));
  report.json["begins"] = tokenizer->decode(ids);
  return report;
}

bool holds_any(const fs::path& directory, std::initializer_list<const char*> names) {
  return std::any_of(names.begin(), names.end(),
                     [&](const char* name) { return fs::exists(directory / name); });
}

std::vector<fs::path> tensor_files_in(const fs::path& directory) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(directory))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

Report describe_directory(const fs::path& path, int& unsound) {
  if (holds_any(path, {"manifest.json", "checkpoints"}) || find_latest(path))
    return checkpoint_report(resolve_checkpoint(path));
  Report files = tensor_files_report(tensor_files_in(path), unsound), index;
  fs::path index_file = path / "model.safetensors.index.json";
  if (fs::exists(index_file)) index = json_file_report(index_file);
  std::string text = files.text + index.text;
  if (!text.empty()) {
    return {text,
            {{"path", path.string()},
             {"kind", "tensor_files"},
             {"files", files.json},
             {"index", index.json}}};
  }
  check(holds_any(path, {"tokenizer.json", "encoder.json", "vocab.json"}),
        "{}: holds neither a run, nor checkpoints, tensor files or a tokenizer", path.string());
  return tokenizer_report(path);
}

Report describe(const Options& options, int& unsound) {
  const fs::path path = options.path;
  check(fs::exists(path), "{}: no such file or directory", options.path);
  if (fs::is_directory(path)) return describe_directory(path, unsound);
  check(fs::is_regular_file(path), "{}: is a pipe or a device, not a file", options.path);
  if (path.filename() == "manifest.json")
    return checkpoint_report(path.has_parent_path() ? path.parent_path() : ".");
  if (is_token_file(options.path)) return describe_token_file(options);
  std::string head = read_file_head(options.path);
  check_no_lfs_pointer(head, options.path);
  if (path.extension() == ".safetensors" || is_safetensors(head)) return tensor_file_report(path);
  bool yaml = path.extension() == ".yaml" || path.extension() == ".yml";
  check(!yaml,
        "{}: is no token file, tensor file, tokenizer or checkpoint; 'adagate config' checks "
        "a configuration",
        options.path);
  return path.extension() == ".json" ? json_file_report(path) : other_file_report(path);
}

int run(const Options& options) {
  int unsound = 0;
  Report report = options.devices ? describe_devices() : describe(options, unsound);
  print_output(options.json ? json_text(report.json) : report.text);
  check(unsound == 0, "{}: of its tensor files {} can't be read, see above", options.path, unsound);
  return 0;
}

}  // namespace

void add_inspect_command(CLI::App& program, Invocation& invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      program.add_subcommand("inspect",
                             "Print what a checkpoint, token file, tensor file or "
                             "tokenizer holds, and whether it is sound, or what this "
                             "machine can compute on");
  auto* path = add_value(*command, "PATH", options->path, "File or directory", a_path());
  command->add_flag("--devices", options->devices, "What this machine can compute on")
      ->excludes(path);
  add_value(*command, "--tokenizer", options->tokenizer,
            "Of a token file: also print how its text begins; byte or a path", a_path());
  command->add_flag("--json", options->json, "Print one JSON object");
  command->footer(R"(Under mpirun or srun every rank prints what it is asked for.
Examples:
  adagate inspect runs/quickstart
  adagate inspect runs/quickstart --json
  adagate inspect runs/quickstart/checkpoints/step-00000600
  adagate inspect shakespeare.tokens --tokenizer byte
  adagate inspect --devices)");
  command->callback([options, &invocation] {
    if (options->path.empty() && !options->devices) throw CLI::RequiredError("PATH or --devices");
    invocation.run = [options] { return run(*options); };
  });
}

}  // namespace adagate
