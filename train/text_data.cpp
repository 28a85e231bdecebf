#include "train/text_data.h"

#include "core/base/log.h"
#include "core/io/atomic_file.h"
#include "core/io/safetensors.h"
#include "data/token_file.h"
#include "data/tokenize_files.h"
#include "parallel/agree.h"
#include "parallel/placement.h"
#include "train/signals.h"

namespace adagate {
namespace fs = std::filesystem;
namespace {

// Path of the token file that `text` has been or will be tokenized into.
fs::path cached_tokens(const fs::path& text, const Tokenizer& tokenizer, const fs::path& cache) {
  constexpr size_t kLongestName = 100;
  return cache / fmt::format("{}-{:016x}-{:016x}.tokens",
                             text.stem().string().substr(0, kLongestName), checksum_file(text),
                             tokenizer.hash());
}

// Where the launcher tells no place on the node, every rank takes itself for the first: they write
// the same, each whole.
bool first_of_node() {
  return read_launch_environment().local_rank == 0;
}

}  // namespace

std::unique_ptr<TokenDataset> open_text(const std::string& path, const std::string& key,
                                        const Tokenizer& tokenizer, int64_t sequence,
                                        const fs::path& cache, Communicator& world,
                                        CacheShared shared, std::vector<fs::path>* made) {
  bool first = shared == CacheShared::by_all ? world.rank() == 0 : first_of_node();
  fs::path tokens = path;
  auto on_all = [&](auto&& work) { on_all_ranks(world, [&] { named(key, work); }); };
  on_all([&] {
    std::error_code error;
    check(!path.empty(), "is not set; name a token file (adagate tokenize) or a text file");
    check(fs::exists(path, error), "{} does not exist (looked for from {})", path,
          fs::current_path(error).string());
    check(!fs::is_directory(path, error), "{} is a directory, a file is expected", path);
    check(fs::is_regular_file(path, error),
          "{} is a pipe or a device: save what it gives in a file and name that", path);
    check(fs::file_size(path, error) > 0, "{} is empty; name a text or token file with content",
          path);
    if (is_token_file(path)) return;
    tokens = cached_tokens(path, tokenizer, cache);
  });
  on_all([&] {
    std::error_code error;
    if (!first || tokens == path || fs::exists(tokens, error)) return;
    auto directories = make_directories(cache);
    if (made) made->insert(made->end(), directories.begin(), directories.end());
    TokenizeProgress done =
        tokenize_files({path}, tokenizer, tokens.string(), {},
                       [](const TokenizeProgress&) { check_not_stopped(kStoppedEarly); });
    if (made) made->push_back(tokens);
    log::info("tokenized {}: {} tokens", path, done.tokens);
  });
  std::unique_ptr<TokenDataset> dataset;
  on_all([&] {
    TokenFile file(tokens.string());
    file.view().check_tokenizer(tokenizer);
    dataset = std::make_unique<TokenDataset>(std::move(file), sequence);
  });
  return dataset;
}

RunData open_run_data(const RunConfig& config, const Tokenizer& tokenizer, const fs::path& cache,
                      Communicator& world, CacheShared shared, std::vector<fs::path>* made) {
  const DataConfig& data = config.data;
  auto open = [&](const std::string& path, const char* key) {
    return open_text(path, key, tokenizer, config.model.context, cache, world, shared, made);
  };
  RunData opened;
  opened.train_text = open(data.train, "data.train");
  int64_t samples = opened.train_text->size(), held_out = 0;
  if (!data.validation.empty()) {
    opened.validation_text = open(data.validation, "data.validation");
    opened.validation =
        std::make_unique<DatasetRange>(*opened.validation_text, 0, opened.validation_text->size());
  } else if (data.validation_share > 0) {
    held_out = std::max<int64_t>(
        1, static_cast<int64_t>(data.validation_share * static_cast<double>(samples)));
    check(held_out < samples,
          "data.validation_share is {}, but data.train, {}, has only {} of model.context {}: name "
          "a longer text, or another one with data.validation",
          data.validation_share, data.train,
          samples == 1 ? "1 sample" : fmt::format("{} samples", samples), config.model.context);
    opened.validation =
        std::make_unique<DatasetRange>(*opened.train_text, samples - held_out, held_out);
  }
  opened.train = std::make_unique<DatasetRange>(*opened.train_text, 0, samples - held_out);
  return opened;
}

}  // namespace adagate
