// The GPT-2 pre-tokeniser: cuts text into the words within which byte pairs are merged.
#pragma once

#include <cstddef>
#include <string_view>

namespace adagate {

// End of the word that starts at text[start], start < text.size(), by the pattern
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// The words tile the text. Malformed UTF-8 bytes count as [^\s\p{L}\p{N}].
size_t word_end(std::string_view text, size_t start);

// The longest prefix that can be encoded apart from what follows, whatever that is: it ends before
// a white-space byte that follows a character which is not white space. 0 if there is no such
// place.
size_t safe_text_prefix(std::string_view text);

}  // namespace adagate
