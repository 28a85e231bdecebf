// Dimensions of a tensor, kept inline: handles are copied often.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "core/base/error.h"

namespace adagate {

class Shape {
 public:
  static constexpr int kMaxRank = 5;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}
  explicit Shape(std::span<const int64_t> dims) {
    check(dims.size() <= kMaxRank, "a tensor has at most {} dimensions, {} given", kMaxRank,
          dims.size());
    for (int64_t d : dims) {
      check(d >= 0, "a dimension can't be negative: {}", d);
      dims_[rank_++] = d;
    }
  }

  int rank() const { return rank_; }
  // Negative indices count from the end.
  int64_t operator[](int i) const { return dims_[i < 0 ? rank_ + i : i]; }
  int64_t& operator[](int i) { return dims_[i < 0 ? rank_ + i : i]; }
  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= dims_[i];
    return n;
  }
  const int64_t* begin() const { return dims_.data(); }
  const int64_t* end() const { return dims_.data() + rank_; }
  bool operator==(const Shape& o) const {
    if (rank_ != o.rank_) return false;
    for (int i = 0; i < rank_; ++i)
      if (dims_[i] != o.dims_[i]) return false;
    return true;
  }
  std::string str() const;  // "[8, 256, 384]"

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

}  // namespace adagate

// So that check() can be handed a shape: the text is made only when the check fails.
template <>
struct fmt::formatter<adagate::Shape> : fmt::formatter<std::string> {
  template <class Context>
  auto format(const adagate::Shape& shape, Context& context) const {
    return fmt::formatter<std::string>::format(shape.str(), context);
  }
};
