// Remembers the token ids of words already met.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace adagate {

// Not for several threads at once. Bounded: when full it forgets everything and starts anew.
class WordCache {
 public:
  static constexpr size_t kMaxWord = 64;  // bytes; longer words are not kept
  WordCache();
  // Appends the word's ids to `to`; false if the word is not known.
  bool find(std::string_view word, std::vector<int32_t>& to) const;
  void add(std::string_view word, std::span<const int32_t> ids);

 private:
  static constexpr size_t kSlots = 1 << 17, kMaxWords = kSlots / 2;
  struct Entry {
    uint64_t hash;
    uint32_t text, ids;  // where they begin
    uint16_t size = 0, count = 0;
  };
  size_t slot(std::string_view word, uint64_t hash) const;
  void clear();
  std::vector<Entry> entries_;    // open addressing; size 0: free
  std::string texts_;             // of all words, one after the other
  std::vector<int32_t> all_ids_;  // of all words, one after the other
  size_t words_ = 0;
};

}  // namespace adagate
