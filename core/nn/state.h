// Named tensors that outlive a step: what a checkpoint holds. Each rank names its part of every one
// of them; parts make up the whole when saved, which is cut anew for the ranks that read it.
#pragma once

#include <string>
#include <utility>

#include "core/tensor/tensor.h"

namespace adagate {

// Which part of a tensor a rank holds, others holding the rest: entries [begin, begin + those that
// are here) of one dimension, of which all ranks together have `global`.
struct Shard {
  static constexpr int kWhole = -1;     // every rank holds all of it
  static constexpr int kElements = -2;  // a range of all its elements in row-major order
  int dim = kWhole;
  int64_t begin = 0, global = 0;

  bool operator==(const Shard&) const = default;
};

// Shape over all ranks of what is `part` on this one; not for ranges of elements.
inline Shape whole_shape(Shape part, const Shard& shard) {
  if (shard.dim >= 0) part[shard.dim] = shard.global;
  return part;
}

struct StateTensor {
  std::string name;  // the kind and the name in it: "value/blocks.0.moe.gate.weight"
  Tensor tensor;     // this rank's part; a rank that has nothing of it: a tensor of no elements
  Shape shape;       // of the whole
  Shard shard = {};

  // Entries of the cut dimension that are here.
  int64_t count() const {
    if (shard.dim == Shard::kElements) return tensor.numel();
    int dim = shard.dim < 0 ? 0 : shard.dim;
    return tensor.shape().rank() ? tensor.shape()[dim] : 1;
  }
};

// A part along a dimension, or the whole.
inline StateTensor state_tensor(std::string name, Tensor part, const Shard& shard = {}) {
  Shape shape = whole_shape(part.shape(), shard);
  return {std::move(name), std::move(part), shape, shard};
}

// Elements [begin, begin + part's) of a tensor of `shape` in row-major order, part [n].
inline StateTensor state_elements(std::string name, Tensor part, const Shape& shape,
                                  int64_t begin) {
  Shard shard{.dim = Shard::kElements, .begin = begin, .global = shape.numel()};
  return {std::move(name), std::move(part), shape, shard};
}

// "value" of "value/blocks.0.moe.gate.weight".
inline std::string_view kind_of(std::string_view name) {
  return name.substr(0, name.find('/'));
}

}  // namespace adagate
