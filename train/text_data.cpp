#include "train/text_data.h"

#include "core/base/log.h"
#include "core/io/atomic_file.h"
#include "core/io/safetensors.h"
#include "data/token_file.h"
#include "data/tokenize_files.h"
#include "parallel/agree.h"
#include "parallel/placement.h"
#include "parallel/same_on_all_ranks.h"
#include "train/resume.h"
#include "train/signals.h"

namespace adagate {
namespace fs = std::filesystem;
namespace {

// Path of the token file that `text`, whose content has this hash, has been or will be tokenized
// into.
fs::path cached_tokens(const fs::path& text, uint64_t hash, const Tokenizer& tokenizer,
                       const fs::path& cache) {
  constexpr size_t kLongestName = 100;
  return cache / fmt::format("{}-{:016x}-{:016x}.tokens",
                             text.stem().string().substr(0, kLongestName), hash, tokenizer.hash());
}

// Where the launcher tells no place on the node, every rank takes itself for the first: they write
// the same, each whole.
bool first_of_node() {
  return read_launch_environment().local_rank == 0;
}

// What can't be written is the cache's fault, not that of the text.
void tokenize_into(const fs::path& tokens, const std::string& text, const std::string& key,
                   const Tokenizer& tokenizer, const DataCache& cache) {
  std::vector<fs::path>* made = cache.made;
  try {
    auto directories = make_directories(tokens.parent_path());
    if (made) made->insert(made->end(), directories.begin(), directories.end());
    TokenizeProgress done =
        tokenize_files({text}, tokenizer, tokens.string(), {},
                       [](const TokenizeProgress&) { check_not_stopped(kStoppedEarly); });
    if (made) made->push_back(tokens);
    log::info("tokenized {}: {} tokens", text, done.tokens);
  } catch (const Error& e) {
    std::string what = e.what();
    if (what.find(tokens.parent_path().string()) == std::string::npos)
      throw Error(key + ": " + what, e.exit_code());
    throw Error(
        fmt::format("the tokens of {} can't be kept: {}; {}, or name a token file made with "
                    "adagate tokenize",
                    text, what,
                    cache.shared == CacheShared::by_node
                        ? "set TMPDIR to a folder that can be written"
                        : "choose another --output"),
        e.exit_code());
  }
}

}  // namespace

void check_text_file(const std::string& path) {
  std::error_code error;
  check(!path.empty(), "is not set; name a token file (adagate tokenize) or a text file");
  check(fs::exists(path, error), "{} does not exist (looked for from {})", path,
        fs::current_path(error).string());
  check(!fs::is_directory(path, error), "{} is a directory, a file is expected", path);
  check(fs::is_regular_file(path, error),
        "{} is a pipe or a device: save what it gives in a file and name that", path);
  check(fs::file_size(path, error) > 0, "{} is empty; name a text or token file with content",
        path);
}

std::unique_ptr<TokenDataset> open_text(const std::string& path, const std::string& key,
                                        const Tokenizer& tokenizer, int64_t sequence,
                                        const DataCache& cache, Communicator& world) {
  bool first = cache.shared == CacheShared::by_all ? world.rank() == 0 : first_of_node();
  fs::path tokens = path;
  uint64_t text_hash = 0;  // 0: a token file
  auto on_all = [&](auto&& work) { on_all_ranks(world, [&] { named(key, work); }); };
  on_all([&] {
    check_text_file(path);
    if (is_token_file(path)) return;
    text_hash = checksum_file(path);
    tokens = cached_tokens(path, text_hash, tokenizer, cache.folder);
  });
  constexpr std::string_view kRemedy = "give all ranks the same data";
  same_on_all_ranks(world, {file_fact(key, path, text_hash)}, kRemedy);
  // One name for all: the text may be called otherwise on another host.
  if (text_hash != 0) tokens = cache.folder / broadcast_text(world, tokens.filename().string(), 0);
  on_all_ranks(world, [&] {
    std::error_code error;
    if (!first || tokens == path || fs::exists(tokens, error)) return;
    tokenize_into(tokens, path, key, tokenizer, cache);
  });
  std::unique_ptr<TokenDataset> dataset;
  on_all([&] {
    TokenFile file(tokens.string());
    file.view().check_tokenizer(tokenizer);
    dataset = std::make_unique<TokenDataset>(std::move(file), sequence);
  });
  // A token file carries the hash of its content; that of a text may have come from another cache.
  uint64_t hash = dataset->view().payload_hash();
  same_on_all_ranks(world, {file_fact(key, text_hash ? tokens.string() : path, hash)}, kRemedy);
  return dataset;
}

namespace {

// Opens the texts of a run one by one.
class TextOpener {
 public:
  TextOpener(const RunConfig& config, const Tokenizer& tokenizer, const DataCache& cache,
             Communicator& world)
      : config_(config), tokenizer_(tokenizer), cache_(cache), world_(world) {}

  void open_train(RunData& run) {
    train_ = open(config_.data.train, "data.train", run);
    run.train_hash = hash_text(train_->view().payload_hash());
  }

  // The validation, from a text of its own or the end of the training text, which is open then.
  // Returns how many samples that takes from the training.
  int64_t open_validation(RunData& run) const {
    const DataConfig& data = config_.data;
    if (!data.validation.empty()) {
      const TokenDataset* text = open(data.validation, "data.validation", run);
      run.validation_hash = hash_text(text->view().payload_hash());
      run.validation = std::make_unique<DatasetRange>(*text, 0, text->size());
      return 0;
    }
    if (data.validation_share <= 0) return 0;
    int64_t samples = train_->size();
    int64_t held_out = held_out_samples(config_, samples);
    run.validation = std::make_unique<DatasetRange>(*train_, samples - held_out, held_out);
    return held_out;
  }

  const TokenDataset& train() const { return *train_; }

 private:
  const TokenDataset* open(const std::string& path, const char* key, RunData& run) const {
    auto text = open_text(path, key, tokenizer_, config_.model.context, cache_, world_);
    const TokenDataset* opened = text.get();
    run.sources.push_back(std::move(text));
    return opened;
  }

  const RunConfig& config_;
  const Tokenizer& tokenizer_;
  const DataCache& cache_;
  Communicator& world_;
  const TokenDataset* train_ = nullptr;  // once it is open
};

}  // namespace

RunData open_run_data(const RunConfig& config, const Tokenizer& tokenizer, const DataCache& cache,
                      Communicator& world) {
  TextOpener texts(config, tokenizer, cache, world);
  RunData opened;
  texts.open_train(opened);
  int64_t held_out = texts.open_validation(opened);
  opened.train = std::make_unique<DatasetRange>(texts.train(), 0, texts.train().size() - held_out);
  return opened;
}

RunData open_validation(const RunConfig& config, const Tokenizer& tokenizer, const DataCache& cache,
                        Communicator& world) {
  TextOpener texts(config, tokenizer, cache, world);
  RunData opened;
  if (config.data.validation.empty()) texts.open_train(opened);
  texts.open_validation(opened);
  return opened;
}

std::unique_ptr<Dataset> open_text_file(const std::string& path, const std::string& key,
                                        const RunConfig& config, const Tokenizer& tokenizer,
                                        const DataCache& cache, Communicator& world) {
  return open_text(path, key, tokenizer, config.model.context, cache, world);
}

}  // namespace adagate
