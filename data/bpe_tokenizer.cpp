#include "data/bpe_tokenizer.h"

#include <algorithm>
#include <xxhash.h>

#include "core/base/error.h"
#include "data/pretokenize.h"

namespace adagate {
namespace {

// Feeds lengths with the strings, so that no two definitions give the same byte sequence.
class Hasher {
 public:
  Hasher() : state_(XXH64_createState(), XXH64_freeState) { XXH64_reset(state_.get(), 0); }
  void add(int64_t value) { XXH64_update(state_.get(), &value, sizeof value); }
  void add(std::string_view text) {
    add(static_cast<int64_t>(text.size()));
    XXH64_update(state_.get(), text.data(), text.size());
  }
  uint64_t digest() const { return XXH64_digest(state_.get()); }

 private:
  std::unique_ptr<XXH64_state_t, decltype(&XXH64_freeState)> state_;
};

}  // namespace

// Lends a word cache to one encode() call; each thread gets its own, and it stays warm.
class BpeTokenizer::CacheLease {
 public:
  explicit CacheLease(const BpeTokenizer& owner) : owner_(owner) {
    {
      std::lock_guard lock(owner.mutex_);
      if (!owner.caches_.empty()) {
        cache_ = std::move(owner.caches_.back());
        owner.caches_.pop_back();
      }
    }
    if (!cache_) cache_ = std::make_unique<WordCache>();
  }
  ~CacheLease() {
    std::lock_guard lock(owner_.mutex_);
    owner_.caches_.push_back(std::move(cache_));
  }
  CacheLease(const CacheLease&) = delete;
  CacheLease& operator=(const CacheLease&) = delete;
  WordCache& cache() { return *cache_; }

 private:
  const BpeTokenizer& owner_;
  std::unique_ptr<WordCache> cache_;
};

BpeTokenizer::BpeTokenizer(const BpeDefinition& definition) {
  read_tokens(definition);
  read_merges(definition);
}

BpeTokenizer::~BpeTokenizer() = default;

void BpeTokenizer::read_tokens(const Definition& definition) {
  const auto& vocabulary = definition.vocabulary;
  check(!vocabulary.empty(), "tokenizer: the vocabulary is empty");
  specials_ = definition.specials;
  size_t count = vocabulary.size() + specials_.size();
  int32_t largest = 0;
  for (const auto& [token, id] : vocabulary) largest = std::max(largest, id);
  for (const auto& special : specials_) largest = std::max(largest, special.id);
  check(static_cast<size_t>(largest) < 2 * count + 65536,
        "tokenizer: the largest id is {}, yet there are only {} tokens; ids must be nearly dense",
        largest, count);

  std::vector<const std::string*> by_id(largest + 1, nullptr);
  for (const auto& [token, id] : vocabulary) {
    check(id >= 0 && !by_id[id], "tokenizer: '{}' and '{}' have the same id {}", token,
          id >= 0 && by_id[id] ? *by_id[id] : "", id);
    by_id[id] = &token;
  }
  std::vector<bool> is_special(by_id.size(), false);
  for (const auto& special : specials_) {
    const std::string* holder = special.id < 0 ? &special.text : by_id[special.id];
    check(special.id >= 0 && (!holder || *holder == special.text),
          "tokenizer: special token '{}' has the id {} of '{}'", special.text, special.id,
          holder ? *holder : "");
    auto it = vocabulary.find(special.text);
    check(it == vocabulary.end() || it->second == special.id,
          "tokenizer: special token '{}' has the ids {} and {}", special.text, special.id,
          it == vocabulary.end() ? -1 : it->second);
    by_id[special.id] = &special.text;
    is_special[special.id] = true;
    if (special.text == "<|endoftext|>") end_of_text_ = special.id;
  }

  Hasher hasher;
  hasher.add("adagate byte-level bpe 1");
  offsets_.assign(1, 0);
  std::string bytes;
  for (size_t id = 0; id < by_id.size(); ++id) {
    if (by_id[id]) {
      bool in_alphabet = !is_special[id] && bytes_of_symbols(*by_id[id], bytes);
      bytes_ += in_alphabet ? bytes : *by_id[id];
      hasher.add(static_cast<int64_t>(id) << 1 | is_special[id]);
      hasher.add(*by_id[id]);
    }
    check(bytes_.size() < 1u << 31, "tokenizer: the vocabulary's tokens exceed 2 GiB");
    offsets_.push_back(static_cast<uint32_t>(bytes_.size()));
  }
  for (int byte = 0; byte < 256; ++byte) {
    auto it = vocabulary.find(byte_symbol(static_cast<uint8_t>(byte)));
    byte_ids_[byte] = it == vocabulary.end() ? -1 : it->second;
  }
  if (!definition.unknown.empty()) {
    auto it = vocabulary.find(definition.unknown);
    check(it != vocabulary.end(), "tokenizer: the unknown token '{}' is not in the vocabulary",
          definition.unknown);
    unknown_ = it->second;
  }
  hasher.add(unknown_);
  hash_ = hasher.digest();
}

void BpeTokenizer::read_merges(const Definition& definition) {
  Hasher hasher;
  hasher.add(static_cast<int64_t>(hash_));
  merges_ = MergeTable(definition.merges.size());
  uint32_t rank = 0;
  std::string joined;
  for (const auto& merge : definition.merges) {
    const std::string &left = merge.first, &right = merge.second;
    joined = left + right;
    auto id_of = [&](const std::string& token) {
      auto it = definition.vocabulary.find(token);
      check(
          it != definition.vocabulary.end(),
          "tokenizer: merge {} ('{}' + '{}') needs the token '{}', which is not in the vocabulary; "
          "vocabulary and merges must be of the same tokenizer",
          rank, left, right, token);
      return it->second;
    };
    int32_t left_id = id_of(left), right_id = id_of(right);
    merges_.add(left_id, right_id, rank++, id_of(joined));
    hasher.add(static_cast<int64_t>(left_id) << 32 | right_id);
  }
  hash_ = hasher.digest();
}

void BpeTokenizer::encode_word(std::string_view word, std::vector<int32_t>& symbols) const {
  symbols.clear();
  for (char c : word) {
    auto byte = static_cast<uint8_t>(c);
    int32_t id = byte_ids_[byte] >= 0 ? byte_ids_[byte] : unknown_;
    check(id >= 0, "encode: byte {:#04x} has no token in this vocabulary", byte);
    symbols.push_back(id);
  }
  merges_.apply(symbols);
}

void BpeTokenizer::encode_plain(std::string_view text, WordCache& cache,
                                std::vector<int32_t>& ids) const {
  std::vector<int32_t> symbols;
  for (size_t start = 0; start < text.size();) {
    size_t end = word_end(text, start);
    std::string_view word = text.substr(start, end - start);
    start = end;
    if (cache.find(word, ids)) continue;
    encode_word(word, symbols);
    cache.add(word, symbols);
    ids.insert(ids.end(), symbols.begin(), symbols.end());
  }
}

std::vector<int32_t> BpeTokenizer::encode(std::string_view text,
                                          const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  CacheLease lease(*this);
  if (!options.recognize_special || specials_.empty()) {
    encode_plain(text, lease.cache(), ids);
    return ids;
  }
  // Where each special token comes next; the leftmost is taken, of several there the longest.
  std::vector<size_t> places(specials_.size());
  for (size_t s = 0; s < specials_.size(); ++s) places[s] = text.find(specials_[s].text);
  for (size_t at = 0;;) {
    size_t best = 0;
    for (size_t s = 0; s < specials_.size(); ++s) {
      if (places[s] != text.npos && places[s] < at) places[s] = text.find(specials_[s].text, at);
      bool longer = specials_[s].text.size() > specials_[best].text.size();
      if (places[s] < places[best] || (places[s] == places[best] && longer)) best = s;
    }
    size_t stop = std::min(places[best], text.size());
    encode_plain(text.substr(at, stop - at), lease.cache(), ids);
    if (stop == text.size()) return ids;
    ids.push_back(specials_[best].id);
    at = stop + specials_[best].text.size();
  }
}

std::string BpeTokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  text.reserve(4 * ids.size());
  for (int32_t id : ids) {
    check(id >= 0 && id < vocabulary_size(),
          "decode: token {} is outside the tokenizer's vocabulary of {}", id, vocabulary_size());
    text.append(bytes_, offsets_[id], offsets_[id + 1] - offsets_[id]);
  }
  return text;
}

size_t BpeTokenizer::safe_prefix(std::string_view text) const {
  return safe_text_prefix(text);
}

}  // namespace adagate
