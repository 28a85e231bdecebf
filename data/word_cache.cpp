#include "data/word_cache.h"

#include <xxhash.h>

namespace adagate {

WordCache::WordCache() : entries_(kSlots) {}

size_t WordCache::slot(std::string_view word, uint64_t hash) const {
  size_t at = hash & (kSlots - 1);
  for (;; at = (at + 1) & (kSlots - 1)) {
    const Entry& entry = entries_[at];
    if (entry.size == 0) return at;
    if (entry.hash == hash && std::string_view(texts_).substr(entry.text, entry.size) == word)
      return at;
  }
}

bool WordCache::find(std::string_view word, std::vector<int32_t>& to) const {
  if (word.size() > kMaxWord) return false;
  const Entry& entry = entries_[slot(word, XXH3_64bits(word.data(), word.size()))];
  if (entry.size == 0) return false;
  to.insert(to.end(), all_ids_.begin() + entry.ids, all_ids_.begin() + entry.ids + entry.count);
  return true;
}

void WordCache::add(std::string_view word, std::span<const int32_t> ids) {
  if (word.empty() || word.size() > kMaxWord) return;
  if (words_ == kMaxWords) clear();
  uint64_t hash = XXH3_64bits(word.data(), word.size());
  Entry& entry = entries_[slot(word, hash)];
  if (entry.size != 0) return;
  entry = {hash, static_cast<uint32_t>(texts_.size()), static_cast<uint32_t>(all_ids_.size()),
           static_cast<uint16_t>(word.size()), static_cast<uint16_t>(ids.size())};
  texts_ += word;
  all_ids_.insert(all_ids_.end(), ids.begin(), ids.end());
  ++words_;
}

void WordCache::clear() {
  entries_.assign(kSlots, Entry{});
  texts_.clear();
  all_ids_.clear();
  words_ = 0;
}

}  // namespace adagate
