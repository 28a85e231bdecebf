// The plain tokenizer: one token per byte, and one for the end of a text.
#pragma once

#include "data/tokenizer.h"

namespace adagate {

// Ids 0-255 are the bytes, 256 is <|endoftext|>, which decodes to those letters.
class ByteTokenizer : public Tokenizer {
 public:
  static constexpr int32_t kEndOfText = 256;
  std::string name() const override { return "byte"; }
  int64_t vocabulary_size() const override { return kEndOfText + 1; }
  int32_t end_of_text() const override { return kEndOfText; }
  uint64_t hash() const override;
  std::vector<int32_t> encode(std::string_view text,
                              const EncodeOptions& options = {}) const override;
  std::string decode(std::span<const int32_t> ids) const override;
  size_t safe_prefix(std::string_view text) const override { return text.size(); }
};

}  // namespace adagate
