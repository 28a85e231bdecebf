// The order in which the blocks of a grid run, and in which threads that can run take their turns.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "tests/cuda/emulator/config.h"

namespace adagate::emulator {

class BlockOrder {
 public:
  BlockOrder(size_t blocks, Order order, uint64_t seed) : blocks_(blocks), order_(order) {
    if (order != Order::random) return;
    shuffled_.resize(blocks);
    std::iota(shuffled_.begin(), shuffled_.end(), size_t{0});
    std::shuffle(shuffled_.begin(), shuffled_.end(), std::mt19937_64(seed));
  }

  size_t size() const { return blocks_; }
  size_t operator[](size_t turn) const {
    if (order_ == Order::random) return shuffled_[turn];
    return order_ == Order::reverse ? blocks_ - 1 - turn : turn;
  }

 private:
  size_t blocks_;
  Order order_;
  std::vector<size_t> shuffled_;
};

// The threads that can run. First in, first out, so that all that pass a barrier run in the order
// in which they were put in; or in any order.
class ReadyThreads {
 public:
  void reset(size_t threads, Order order, uint64_t seed) {
    ring_.resize(std::bit_ceil(threads + 1));
    first_ = end_ = 0;
    order_ = order;
    random_.seed(static_cast<unsigned>(seed));
  }
  bool empty() const { return first_ == end_; }
  void put(unsigned thread) { ring_[end_++ & (ring_.size() - 1)] = thread; }
  unsigned take() {
    if (order_ == Order::random && end_ - first_ > 1)
      std::swap(at(first_), at(first_ + random_() % (end_ - first_)));
    return at(first_++);
  }

 private:
  unsigned& at(size_t place) { return ring_[place & (ring_.size() - 1)]; }

  std::vector<unsigned> ring_;  // a power of two of places
  size_t first_ = 0, end_ = 0;
  Order order_ = Order::forward;
  std::minstd_rand random_;
};

}  // namespace adagate::emulator
