// Sizes in which the caching allocators keep blocks: eight per power of two, so at most 12.5 % is
// wasted, and tensors of slightly different sizes (routed rows) share blocks.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>

namespace adagate {

constexpr size_t kClassesPerOctave = 8;
constexpr size_t kSizeClasses = kClassesPerOctave * 64;
// A request whose class has no free block takes one of up to twice its size: the rows that adaptive
// gating routes vary between the number of tokens and twice that, and a step that meets a new
// number of them must not ask the system again, nor may every class that ever occurs keep blocks.
constexpr size_t kLargerClasses = kClassesPerOctave;

// Index of a class by its size.
inline size_t class_index(size_t size) {
  size_t octave = static_cast<size_t>(std::bit_width(size)) - 1, floor = std::bit_floor(size);
  return octave * kClassesPerOctave + (size - floor) / (floor / kClassesPerOctave);
}

// `bytes` rounded up to the size of a class; classes are multiples of `alignment`, a power of two.
inline size_t size_class(size_t bytes, size_t alignment) {
  bytes = std::max(bytes, alignment);
  size_t step = std::max(std::bit_floor(bytes) / kClassesPerOctave, alignment);
  return (bytes + step - 1) / step * step;
}

}  // namespace adagate
