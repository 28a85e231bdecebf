// GPT-2's byte-level byte-pair encoding, the same ids as Hugging Face tokenizers.
#pragma once

#include <array>
#include <memory>
#include <mutex>

#include "data/bpe_definition.h"
#include "data/bpe_merge.h"
#include "data/tokenizer.h"
#include "data/word_cache.h"

namespace adagate {

// Text that is not UTF-8 is taken too: each malformed byte counts as a punctuation character when
// words are cut, and is encoded as the byte it is.
class BpeTokenizer : public Tokenizer {
 public:
  // Throws Error if the definition contradicts itself (unknown tokens in merges, ids used twice).
  explicit BpeTokenizer(const BpeDefinition& definition);
  ~BpeTokenizer() override;
  std::string name() const override { return "bpe"; }
  int64_t vocabulary_size() const override { return static_cast<int64_t>(offsets_.size()) - 1; }
  int32_t end_of_text() const override { return end_of_text_; }
  uint64_t hash() const override { return hash_; }
  std::vector<int32_t> encode(std::string_view text,
                              const EncodeOptions& options = {}) const override;
  bool has_token(int32_t id) const override {
    return id >= 0 && id < vocabulary_size() &&
           offsets_[static_cast<size_t>(id)] < offsets_[static_cast<size_t>(id) + 1];
  }
  std::string decode(std::span<const int32_t> ids) const override;
  size_t safe_prefix(std::string_view text) const override;

 private:
  class CacheLease;
  using Definition = BpeDefinition;
  void read_tokens(const Definition& definition);
  void read_merges(const Definition& definition);
  void encode_plain(std::string_view text, WordCache& cache, std::vector<int32_t>& ids) const;
  void encode_word(std::string_view word, std::vector<int32_t>& symbols) const;

  std::array<int32_t, 256> byte_ids_;  // -1: no token
  int32_t unknown_ = -1;
  int32_t end_of_text_ = -1;
  uint64_t hash_ = 0;
  MergeTable merges_;
  std::string bytes_;              // of all tokens by id
  std::vector<uint32_t> offsets_;  // [vocabulary + 1] into bytes_
  std::vector<Definition::Special> specials_;
  mutable std::mutex mutex_;  // guards caches_
  mutable std::vector<std::unique_ptr<WordCache>> caches_;
};

}  // namespace adagate
