// Text to token ids and back.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace adagate {

struct EncodeOptions {
  // Take special tokens written out in the text, like <|endoftext|>, for the token. Off, they are
  // plain text, so that data cannot forge a document's end.
  bool recognize_special = false;
};

// All methods may be called by many threads at once. decode(encode(x)) == x for every byte string
// x, UTF-8 or not, as long as the vocabulary holds all 256 bytes.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::string name() const = 0;         // "byte", "bpe"
  virtual int64_t vocabulary_size() const = 0;  // ids are below it
  virtual int32_t end_of_text() const = 0;      // id, or -1
  virtual uint64_t hash() const = 0;            // of all that decides ids: equal hash, equal ids
  virtual std::vector<int32_t> encode(std::string_view text,
                                      const EncodeOptions& options = {}) const = 0;
  // Whether `id` stands for some text; a vocabulary may have holes.
  virtual bool has_token(int32_t id) const { return id >= 0 && id < vocabulary_size(); }
  // Throws Error on an id outside the vocabulary.
  virtual std::string decode(std::span<const int32_t> ids) const = 0;
  // Length of the longest prefix known to encode alike whatever follows it (special tokens not
  // recognised): text can be cut there and the parts encoded apart. 0 if there is none.
  virtual size_t safe_prefix(std::string_view text) const = 0;
};

// encode() of each text, spread over the threads.
std::vector<std::vector<int32_t>> encode_batch(const Tokenizer& tokenizer,
                                               std::span<const std::string_view> texts,
                                               const EncodeOptions& options = {});

// The ids below `vocabulary`, a model's, that stand for no text: holes, and the padding beyond the
// tokenizer's own vocabulary.
std::vector<int32_t> ids_without_token(const Tokenizer& tokenizer, int64_t vocabulary);

// "byte", or the path of a GPT-2 byte-level BPE: a tokenizer.json, or a folder with tokenizer.json,
// encoder.json + vocab.bpe, or vocab.json + merges.txt. Throws Error naming file and remedy.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& spec);

}  // namespace adagate
