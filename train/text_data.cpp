#include "train/text_data.h"

#include <cstring>
#include <fstream>

#include "core/base/log.h"
#include "core/io/atomic_file.h"
#include "core/io/safetensors.h"
#include "data/token_file.h"
#include "data/tokenize_files.h"
#include "parallel/agree.h"

namespace adagate {
namespace fs = std::filesystem;
namespace {

bool is_token_file(const fs::path& path) {
  char magic[8] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof(magic));
  return std::memcmp(magic, "adagtok", 8) == 0;
}

// Path of the token file that `text` has been or will be tokenized into.
fs::path cached_tokens(const fs::path& text, const Tokenizer& tokenizer, const fs::path& cache) {
  return cache / fmt::format("{}-{:016x}-{:016x}.tokens", text.stem().string(), checksum_file(text),
                             tokenizer.hash());
}

}  // namespace

std::unique_ptr<TokenDataset> open_text(const std::string& path, const std::string& key,
                                        const Tokenizer& tokenizer, int64_t sequence,
                                        const fs::path& cache, Communicator& world) {
  fs::path tokens = path;
  on_all_ranks(world, [&] {
    std::error_code error;
    check(!path.empty(), "{} is not set: name a token file (adagate tokenize) or a text file", key);
    check(fs::exists(path, error), "{}: {} does not exist (looked for from {})", key, path,
          fs::current_path(error).string());
    check(!fs::is_directory(path, error), "{}: {} is a directory, a file is expected", key, path);
    check(fs::file_size(path, error) > 0, "{}: {} is empty; name a text or token file with content",
          key, path);
    if (is_token_file(path)) return;
    tokens = cached_tokens(path, tokenizer, cache);
  });
  on_all_ranks(world, [&] {
    std::error_code error;
    if (world.rank() != 0 || tokens == path || fs::exists(tokens, error)) return;
    make_directories(cache);
    TokenizeProgress done = tokenize_files({path}, tokenizer, tokens.string());
    log::info("tokenized {}: {} tokens", path, done.tokens);
  });
  std::unique_ptr<TokenDataset> dataset;
  on_all_ranks(world, [&] {
    TokenFile file(tokens.string());
    file.view().check_tokenizer(tokenizer);
    dataset = std::make_unique<TokenDataset>(std::move(file), sequence);
  });
  return dataset;
}

RunData open_run_data(const RunConfig& config, const Tokenizer& tokenizer, const fs::path& cache,
                      Communicator& world) {
  const DataConfig& data = config.data;
  auto open = [&](const std::string& path, const char* key) {
    return open_text(path, key, tokenizer, config.model.context, cache, world);
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
          "data.train, {}, has {} samples of {} tokens: too few to hold out {} of them "
          "(data.validation_share)",
          data.train, samples, config.model.context, data.validation_share);
    opened.validation =
        std::make_unique<DatasetRange>(*opened.train_text, samples - held_out, held_out);
  }
  opened.train = std::make_unique<DatasetRange>(*opened.train_text, 0, samples - held_out);
  return opened;
}

}  // namespace adagate
