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
    check(fs::exists(path, error), "{}: {} does not exist", key, path);
    check(!fs::is_directory(path, error), "{}: {} is a directory, a file is expected", key, path);
    check(fs::file_size(path, error) > 0, "{}: {} is empty", key, path);
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

}  // namespace adagate
