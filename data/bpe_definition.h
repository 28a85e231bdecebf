// What defines a byte-level BPE, read from the files of GPT-2 and Hugging Face.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace adagate {

// Strings are written in GPT-2's byte alphabet (a space is U+0120, ...), as in the files.
struct BpeDefinition {
  std::unordered_map<std::string, int32_t> vocabulary;
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  struct Special {
    std::string text;  // as it stands in the text, not in the byte alphabet
    int32_t id;
  };
  std::vector<Special> specials;
  std::string unknown;  // token for a byte outside the vocabulary; empty: such text is refused
};

// The three file formats, from text in memory; `name` stands for the file in messages. All throw
// Error naming file, place and remedy on broken or unsupported content.
BpeDefinition parse_tokenizer_json(std::string_view text, const std::string& name);
void parse_vocabulary_json(std::string_view text, const std::string& name, BpeDefinition& into);
void parse_merges(std::string_view text, const std::string& name, BpeDefinition& into);

// From a tokenizer.json or a folder, see load_tokenizer().
BpeDefinition load_bpe(const std::string& path);

// GPT-2's alphabet: the character that stands for a byte (188 printable ones stand for themselves,
// the other 68 are U+0100 onwards), in UTF-8; and back, false if a character is not of the
// alphabet.
const std::string& byte_symbol(uint8_t byte);
bool bytes_of_symbols(std::string_view symbols, std::string& bytes);

}  // namespace adagate
