// Where the elements of a state tensor lie: in the parts of the ranks, and in the slices of shards.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "core/nn/state.h"

namespace adagate {

// Entries of what a tensor of this shape is cut along: a dimension, or all elements.
int64_t extent_of(const Shape& shape, int cut);

// Elements of a part within its whole, in row-major order: `runs` runs of `length` elements, the
// first one at `first`, each `stride` after the one before. They follow each other in the part.
struct PartLayout {
  int64_t runs = 1, first = 0, length = 0, stride = 0;
};

// Of entries [begin, begin + count) along `cut`.
PartLayout part_layout(const Shape& shape, int cut, int64_t begin, int64_t count);

// fn(in_a, in_b, n) for every stretch of n elements that two parts of one tensor share, with its
// place in each.
template <class F>
void for_each_overlap(const PartLayout& a, const PartLayout& b, F&& fn) {
  int64_t i = 0, j = 0;
  while (i < a.runs && j < b.runs) {
    int64_t a_first = a.first + i * a.stride, b_first = b.first + j * b.stride;
    int64_t a_end = a_first + a.length, b_end = b_first + b.length;
    int64_t begin = std::max(a_first, b_first), end = std::min(a_end, b_end);
    if (begin < end)
      fn(i * a.length + begin - a_first, j * b.length + begin - b_first, end - begin);
    (a_end < b_end ? i : j)++;
  }
}

// What a rank has of a tensor, along its cut.
struct HeldPart {
  int64_t begin = 0, count = 0;
};

struct PlannedSlice {
  std::string tensor;  // StateTensor::name
  std::string key;     // in the shard
  int64_t shard = 0;   // rank that writes it
  int64_t begin = 0, count = 0;
};

// `held` [ranks, states]: of rank 0 first. Every part that some ranks have is written once, by the
// one of them with the fewest bytes so far. Throws Error when the parts of a tensor overlap or
// leave a hole.
std::vector<PlannedSlice> plan_slices(const std::vector<StateTensor>& states,
                                      const std::vector<HeldPart>& held);

}  // namespace adagate
