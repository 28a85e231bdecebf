// Bytes as text for a small byte-level BPE.
#include <memory>
#include <string_view>
#include <vector>

#include "data/bpe_tokenizer.h"
#include "tests/fuzz/fuzz.h"

namespace {

std::unique_ptr<adagate::BpeTokenizer> small_tokenizer() {
  using namespace adagate;
  BpeDefinition definition;
  int32_t next = 0;
  for (int byte = 0; byte < 256; ++byte)
    definition.vocabulary[byte_symbol(static_cast<uint8_t>(byte))] = next++;
  std::string space = byte_symbol(' ');
  for (auto [left, right] : std::vector<std::pair<std::string, std::string>>{
           {"t", "h"}, {"th", "e"}, {space, "the"}, {"a", "a"}, {"aa", "aa"}, {space, space}}) {
    definition.merges.emplace_back(left, right);
    definition.vocabulary[left + right] = next++;
  }
  definition.specials.push_back({"<|endoftext|>", next});
  return std::make_unique<BpeTokenizer>(definition);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace adagate;
  static const auto tokenizer = small_tokenizer();
  std::string_view text(reinterpret_cast<const char*>(data), size);
  auto ids = tokenizer->encode(text);
  fuzz::expect(tokenizer->decode(ids) == text, "decode(encode(text)) is the text");
  size_t cut = tokenizer->safe_prefix(text);
  fuzz::expect(cut <= size, "a prefix is no longer than the text");
  auto apart = tokenizer->encode(text.substr(0, cut));
  auto rest = tokenizer->encode(text.substr(cut));
  apart.insert(apart.end(), rest.begin(), rest.end());
  fuzz::expect(apart == ids, "parts cut at a safe prefix encode as the whole");
  return 0;
}
