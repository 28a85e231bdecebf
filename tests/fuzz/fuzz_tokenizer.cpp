// Text as a tokenizer's files: a tokenizer.json, or, divided by a zero byte, a vocabulary and its
// merges, and a text to encode.
#include <vector>

#include "data/bpe_tokenizer.h"
#include "tests/fuzz/fuzz.h"

namespace {

// Up to `count` parts between zero bytes; the last takes the rest.
std::vector<std::string> parts_of(const std::string& text, size_t count) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (parts.size() + 1 < count) {
    size_t end = text.find('\0', begin);
    if (end == std::string::npos) break;
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  parts.push_back(text.substr(begin));
  parts.resize(count);
  return parts;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace adagate;
  auto parts = parts_of(std::string(reinterpret_cast<const char*>(data), size), 3);
  fuzz::expect_only_error([&] {
    BpeDefinition definition;
    if (parts[1].empty()) {
      definition = parse_tokenizer_json(parts[0], "tokenizer.json");
    } else {
      parse_vocabulary_json(parts[0], "vocab.json", definition);
      parse_merges(parts[1], "merges.txt", definition);
    }
    BpeTokenizer tokenizer(definition);
    auto ids = tokenizer.encode(parts[2]);
    for (int32_t id : ids)
      fuzz::expect(id >= 0 && id < tokenizer.vocabulary_size(), "ids are in the vocabulary");
    std::string back = tokenizer.decode(ids);
    if (definition.unknown.empty())
      fuzz::expect(back == parts[2], "decode(encode(text)) is the text");
  });
  return 0;
}
