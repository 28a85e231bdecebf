// adagate inspect: what a file or directory holds.
#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <memory>

#include "apps/commands.h"
#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "data/token_file.h"
#include "train/checkpoint_report.h"
#include "train/saved_model.h"

namespace adagate {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string path;
  std::string tokenizer;
};

bool starts_with_bytes(const fs::path& path, std::string_view bytes, size_t at = 0) {
  std::string found(bytes.size(), '\0');
  std::ifstream file(path, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(at));
  return file.read(found.data(), static_cast<std::streamsize>(found.size())) && found == bytes;
}

std::string describe_tensors(const fs::path& path) {
  SafetensorsFile file(path);
  std::string text = fmt::format("{}: tensor file (safetensors)\n", path.string());
  for (const auto& [key, value] : file.metadata()) text += fmt::format("  {} = {}\n", key, value);
  int64_t elements = 0, bytes = 0;
  for (const auto& [name, entry] : file.tensors()) {
    text += fmt::format("  {:<48} {:<5} {}\n", name, name_of(entry.dtype), entry.shape.str());
    elements += entry.shape.numel();
    bytes += static_cast<int64_t>(entry.end - entry.begin);
  }
  return text +
         fmt::format("{} tensors, {} elements, {} bytes\n", file.tensors().size(), elements, bytes);
}

std::string describe_tokenizer(const std::string& path) {
  auto tokenizer = load_tokenizer(path);
  return fmt::format(
      "{}: tokenizer {}\n  vocabulary   {}\n  end of text  {}\n  hash         {:016x}\n", path,
      tokenizer->name(), tokenizer->vocabulary_size(), tokenizer->end_of_text(), tokenizer->hash());
}

std::string describe_token_file(const Options& options) {
  TokenFile file(options.path);
  const TokenView& view = file.view();
  view.verify();
  std::string text = fmt::format(
      "{}: token file, sound\n  tokens      {}\n  documents   {}\n  tokenizer   {} (hash {:016x})\n"
      "  vocabulary  {} ({} bytes per token)\n",
      options.path, view.size(), view.documents(), view.tokenizer_name(), view.tokenizer_hash(),
      view.vocabulary(), view.token_width());
  if (options.tokenizer.empty()) return text;
  auto tokenizer = load_tokenizer(options.tokenizer);
  view.check_tokenizer(*tokenizer);
  std::vector<int32_t> ids(static_cast<size_t>(std::min<int64_t>(view.size(), 100)));
  view.read(0, ids);
  return text + fmt::format("  it begins\n{}\n", tokenizer->decode(ids));
}

bool holds_any(const fs::path& directory, std::initializer_list<const char*> names) {
  return std::any_of(names.begin(), names.end(),
                     [&](const char* name) { return fs::exists(directory / name); });
}

std::string describe_directory(const fs::path& path) {
  if (holds_any(path, {"manifest.json", "checkpoints"}) || find_latest(path))
    return checkpoint_report(resolve_checkpoint(path));
  std::vector<fs::path> tensors;
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.path().extension() == ".safetensors") tensors.push_back(entry.path());
  std::sort(tensors.begin(), tensors.end());
  std::string text;
  for (const fs::path& file : tensors) text += describe_tensors(file);
  if (!text.empty()) return text;
  check(holds_any(path, {"tokenizer.json", "encoder.json", "vocab.json"}),
        "{}: holds neither a run, nor checkpoints, tensor files or a tokenizer", path.string());
  return describe_tokenizer(path.string());
}

std::string describe(const Options& options) {
  const fs::path path = options.path;
  check(fs::exists(path), "{}: no such file or directory", options.path);
  if (fs::is_directory(path)) return describe_directory(path);
  check(fs::is_regular_file(path), "{}: is a pipe or a device, not a file", options.path);
  if (path.filename() == "manifest.json")
    return checkpoint_report(path.has_parent_path() ? path.parent_path() : ".");
  if (is_token_file(options.path)) return describe_token_file(options);
  if (path.extension() == ".safetensors" || starts_with_bytes(path, "{", 8))
    return describe_tensors(path);
  bool yaml = path.extension() == ".yaml" || path.extension() == ".yml";
  check(path.extension() == ".json", "{}: is no token file, tensor file, tokenizer or checkpoint{}",
        options.path, yaml ? "; 'adagate config' checks a configuration" : "");
  return describe_tokenizer(options.path);
}

int run(const Options& options) {
  print_output(describe(options));
  return 0;
}

}  // namespace

void add_inspect_command(CLI::App& program, Invocation& invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("inspect",
                                             "Print what a checkpoint, token file, tensor file or "
                                             "tokenizer holds, and whether it is sound");
  command->add_option("PATH", options->path, "File or directory")->required();
  command
      ->add_option("--tokenizer", options->tokenizer,
                   "Of a token file: also print how its text begins")
      ->type_name("SPEC");
  command->footer(R"(Under mpirun or srun every rank prints what it is asked for.
Examples:
  adagate inspect shakespeare.tokens --tokenizer byte
  adagate inspect runs/quickstart
  adagate inspect datasets/tokenizers/gpt2
  adagate inspect model.safetensors)");
  command->callback(
      [options, &invocation] { invocation.run = [options] { return run(*options); }; });
}

}  // namespace adagate
