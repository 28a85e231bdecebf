#include "data/byte_tokenizer.h"

#include "core/base/error.h"
#include "core/base/rng.h"

namespace adagate {
namespace {

constexpr std::string_view kEndOfTextName = "<|endoftext|>";

}  // namespace

uint64_t ByteTokenizer::hash() const {
  return hash_name("adagate byte tokenizer 1");
}

std::vector<int32_t> ByteTokenizer::encode(std::string_view text,
                                           const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    if (options.recognize_special && text.substr(at).starts_with(kEndOfTextName)) {
      ids.push_back(kEndOfText);
      at += kEndOfTextName.size();
    } else {
      ids.push_back(static_cast<uint8_t>(text[at++]));
    }
  }
  return ids;
}

std::string ByteTokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  text.reserve(ids.size());
  for (int32_t id : ids) {
    check(id >= 0 && id <= kEndOfText, "decode: token {} is outside the byte vocabulary of 257",
          id);
    if (id == kEndOfText)
      text += kEndOfTextName;
    else
      text += static_cast<char>(id);
  }
  return text;
}

}  // namespace adagate
