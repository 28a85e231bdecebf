#include "data/bpe_merge.h"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <limits>

#include "core/base/error.h"

namespace adagate {
namespace {

constexpr size_t kScanLimit = 32;  // symbols; up to here scanning beats a heap
constexpr uint32_t kNoRank = std::numeric_limits<uint32_t>::max();

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// Multiplicative hashing by the golden ratio (Knuth, volume 3, 6.4): ids of neighbours spread out.
size_t spread(uint64_t key) {
  return (key * 0x9E3779B97F4A7C15ull) >> 24;
}

}  // namespace

MergeTable::MergeTable(size_t expected) : slots_(std::bit_ceil(2 * expected + 2)) {}

MergeTable::Merge& MergeTable::slot(uint64_t pair) {
  size_t mask = slots_.size() - 1, at = spread(pair) & mask;
  while (slots_[at].pair != kEmpty && slots_[at].pair != pair) at = (at + 1) & mask;
  return slots_[at];
}

void MergeTable::add(int32_t left, int32_t right, uint32_t rank, int32_t token) {
  // At most half full: a search that ends in an empty slot looks at two on average.
  if (2 * (used_ + 1) > slots_.size()) {
    MergeTable larger(slots_.size());
    for (const Merge& merge : slots_)
      if (merge.pair != kEmpty) larger.slot(merge.pair) = merge;
    slots_ = std::move(larger.slots_);
  }
  Merge& merge = slot(pair_key(left, right));
  used_ += merge.pair == kEmpty;
  merge = {pair_key(left, right), rank, token};
}

const MergeTable::Merge* MergeTable::find(int32_t left, int32_t right) const {
  uint64_t pair = pair_key(left, right);
  size_t mask = slots_.size() - 1;
  for (size_t at = spread(pair) & mask;; at = (at + 1) & mask) {
    if (slots_[at].pair == pair) return &slots_[at];
    if (slots_[at].pair == kEmpty) return nullptr;
  }
}

void MergeTable::apply(std::vector<int32_t>& symbols) const {
  if (symbols.size() < 2) return;
  if (symbols.size() <= kScanLimit)
    apply_by_scan(symbols);
  else
    apply_by_heap(symbols);
}

void MergeTable::apply_by_scan(std::vector<int32_t>& symbols) const {
  std::array<const Merge*, kScanLimit> merges;  // of symbols i and i + 1
  size_t count = symbols.size();
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = find(symbols[i], symbols[i + 1]);
  // The merge learned first goes first, of equal ones the leftmost, as in training; a merge changes
  // its two neighbours only.
  while (true) {
    size_t best = count;
    uint32_t rank = kNoRank;
    for (size_t i = 0; i + 1 < count; ++i) {
      if (merges[i] && merges[i]->rank < rank) {
        rank = merges[i]->rank;
        best = i;
      }
    }
    if (best == count) break;
    symbols[best] = merges[best]->token;
    symbols.erase(symbols.begin() + best + 1);
    std::copy(merges.begin() + best + 1, merges.begin() + count - 1, merges.begin() + best);
    --count;
    if (best > 0) merges[best - 1] = find(symbols[best - 1], symbols[best]);
    if (best + 1 < count) merges[best] = find(symbols[best], symbols[best + 1]);
  }
}

void MergeTable::apply_by_heap(std::vector<int32_t>& symbols) const {
  check(symbols.size() < std::numeric_limits<int32_t>::max(), "a word of {} bytes is too long",
        symbols.size());
  int32_t count = static_cast<int32_t>(symbols.size());
  std::vector<int32_t> previous(count), next(count);
  for (int32_t i = 0; i < count; ++i) {
    previous[i] = i - 1;
    next[i] = i + 1 < count ? i + 1 : -1;
  }
  // Candidates as rank << 32 | position of the left symbol, the smallest on top. A candidate whose
  // pair has changed since is found out by its rank, for a rank belongs to one pair.
  std::vector<uint64_t> heap;
  heap.reserve(count);
  auto push = [&](int32_t left) {
    if (left < 0 || next[left] < 0) return;
    if (const Merge* merge = find(symbols[left], symbols[next[left]])) {
      heap.push_back(static_cast<uint64_t>(merge->rank) << 32 | static_cast<uint32_t>(left));
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
  };
  for (int32_t i = 0; i + 1 < count; ++i) push(i);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    auto rank = static_cast<uint32_t>(heap.back() >> 32);
    auto left = static_cast<int32_t>(heap.back() & 0xffffffffu);
    heap.pop_back();
    int32_t right = symbols[left] < 0 ? -1 : next[left];
    if (right < 0) continue;
    const Merge* merge = find(symbols[left], symbols[right]);
    if (!merge || merge->rank != rank) continue;
    symbols[left] = merge->token;
    symbols[right] = -1;  // gone
    next[left] = next[right];
    if (next[left] >= 0) previous[next[left]] = left;
    push(previous[left]);
    push(left);
  }
  std::erase(symbols, -1);
}

}  // namespace adagate
