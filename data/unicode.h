// UTF-8 and the character classes of the GPT-2 pre-tokeniser.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace adagate {

// \s (Unicode White_Space), \p{L}, \p{N} and all the rest, as Hugging Face tokenizers sees them.
enum class CharClass : uint8_t { other, space, letter, number };

// Runs of one class, ascending: first code point << 2 | class. Generated, see unicode_table.cpp.
extern const uint32_t kUnicodeRuns[];
extern const size_t kUnicodeRunCount;

struct CodePoint {
  uint32_t value = 0;  // meaningless if !valid
  uint8_t size = 1;    // bytes taken
  bool valid = true;
};

// The code point at text[at], at < text.size(). A byte that starts no well-formed UTF-8 sequence
// (stray continuation, overlong form, surrogate, above U+10FFFF, cut off) is taken alone, not
// valid.
CodePoint decode_utf8(std::string_view text, size_t at);

CharClass char_class(uint32_t code_point);

// Class and size of the character at text[at]; a malformed byte counts as `other`.
struct ClassedChar {
  CharClass kind;
  uint8_t size;
};
ClassedChar classed_char(std::string_view text, size_t at);

}  // namespace adagate
