#include "data/pretokenize.h"

#include "data/unicode.h"

namespace adagate {
namespace {

// Length of 's 't 're 've 'm 'll 'd at text[at], which is an apostrophe, or 0.
size_t contraction(std::string_view text, size_t at) {
  std::string_view rest = text.substr(at + 1, 2);
  if (rest.empty()) return 0;
  switch (rest[0]) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return rest.size() == 2 && rest[1] == 'e' ? 3 : 0;
    case 'l':
      return rest.size() == 2 && rest[1] == 'l' ? 3 : 0;
    default:
      return 0;
  }
}

// End of the run of characters of one class from `at` on.
size_t run_end(std::string_view text, size_t at, CharClass kind) {
  while (at < text.size()) {
    ClassedChar c = classed_char(text, at);
    if (c.kind != kind) break;
    at += c.size;
  }
  return at;
}

// \s+(?!\S)|\s+ : before other text the run gives its last character to the next word.
size_t space_end(std::string_view text, size_t start) {
  size_t at = start, last = start;
  while (at < text.size()) {
    ClassedChar c = classed_char(text, at);
    if (c.kind != CharClass::space) break;
    last = at;
    at += c.size;
  }
  return at == text.size() || last == start ? at : last;
}

bool is_ascii_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

// Is the character that ends just before text[at], at > 0, white space?
bool space_before(std::string_view text, size_t at) {
  size_t start = at - 1;
  while (start > 0 && at - start < 4 && (static_cast<uint8_t>(text[start]) & 0xC0) == 0x80) --start;
  ClassedChar c = classed_char(text, start);
  return c.kind == CharClass::space && start + c.size == at;
}

}  // namespace

size_t word_end(std::string_view text, size_t start) {
  if (text[start] == '\'')
    if (size_t length = contraction(text, start)) return start + length;
  ClassedChar first = classed_char(text, start);
  if (first.kind != CharClass::space) return run_end(text, start + first.size, first.kind);
  if (text[start] == ' ' && start + 1 < text.size()) {
    ClassedChar second = classed_char(text, start + 1);
    if (second.kind != CharClass::space) return run_end(text, start + 1 + second.size, second.kind);
  }
  return space_end(text, start);
}

size_t safe_text_prefix(std::string_view text) {
  for (size_t at = text.size(); at-- > 1;)
    if (is_ascii_space(text[at]) && !space_before(text, at)) return at;
  return 0;
}

}  // namespace adagate
