// The byte-pair merges of a BPE, and their application to one word.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace adagate {

class MergeTable {
  static constexpr uint64_t kEmpty = ~0ull;

 public:
  struct Merge {
    uint64_t pair = kEmpty;  // left id << 32 | right id
    uint32_t rank = 0;       // lower merges first
    int32_t token = 0;       // the pair's new id
  };
  explicit MergeTable(size_t expected = 0);
  // A pair added again takes the later rank, as in Hugging Face tokenizers.
  void add(int32_t left, int32_t right, uint32_t rank, int32_t token);
  const Merge* find(int32_t left, int32_t right) const;

  // Merges the pair of lowest rank, leftmost first, until no pair of `symbols` is in the table.
  // O(n log n) time in the word's length.
  void apply(std::vector<int32_t>& symbols) const;

 private:
  void apply_by_scan(std::vector<int32_t>& symbols) const;
  void apply_by_heap(std::vector<int32_t>& symbols) const;
  Merge& slot(uint64_t pair);
  std::vector<Merge> slots_;  // open addressing, a power of two, at most half full
  size_t used_ = 0;
};

}  // namespace adagate
