#include "data/unicode.h"

#include <algorithm>
#include <array>

namespace adagate {
namespace {

CharClass search_runs(uint32_t code_point) {
  // The last run that starts at or before the code point; the first starts at 0.
  const uint32_t* end = kUnicodeRuns + kUnicodeRunCount;
  const uint32_t* run = std::upper_bound(kUnicodeRuns, end, code_point << 2 | 3u) - 1;
  return static_cast<CharClass>(*run & 3u);
}

using PlaneTable = std::array<CharClass, 0x10000>;

// The Basic Multilingual Plane, which nearly all text lives in, by direct look-up.
const PlaneTable& basic_plane() {
  static const PlaneTable table = [] {
    PlaneTable t;
    for (size_t r = 0; r < kUnicodeRunCount; ++r) {
      size_t first = std::min<size_t>(kUnicodeRuns[r] >> 2, t.size());
      size_t last = r + 1 < kUnicodeRunCount ? std::min<size_t>(kUnicodeRuns[r + 1] >> 2, t.size())
                                             : t.size();
      std::fill(t.begin() + first, t.begin() + last, static_cast<CharClass>(kUnicodeRuns[r] & 3u));
    }
    return t;
  }();
  return table;
}

}  // namespace

CodePoint decode_utf8(std::string_view text, size_t at) {
  auto byte = [&](size_t i) { return static_cast<uint8_t>(text[at + i]); };
  uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1, true};
  const CodePoint malformed{0, 1, false};
  size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() - at < size) return malformed;
  uint32_t value = lead & (0x7Fu >> size);
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return malformed;
    value = value << 6 | (byte(i) & 0x3Fu);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  bool surrogate = value >= 0xD800 && value < 0xE000;
  if (value < kSmallest[size] || value > 0x10FFFF || surrogate) return malformed;
  return {value, static_cast<uint8_t>(size), true};
}

CharClass char_class(uint32_t code_point) {
  static const PlaneTable& basic = basic_plane();
  return code_point < basic.size() ? basic[code_point] : search_runs(code_point);
}

ClassedChar classed_char(std::string_view text, size_t at) {
  CodePoint c = decode_utf8(text, at);
  return {c.valid ? char_class(c.value) : CharClass::other, c.size};
}

}  // namespace adagate
