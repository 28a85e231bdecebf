// Numbers that the communicator suite sends, and what must arrive.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "parallel/communicator.h"

namespace adagate::suite {

constexpr ReduceOp kOps[] = {ReduceOp::sum, ReduceOp::max, ReduceOp::min};

template <class F>
void for_each_type(F&& f) {
  f(float{});
  f(bfloat16{});
  f(double{});
  f(int32_t{});
  f(int64_t{});
  f(uint8_t{});
}

// Element i of rank r: of both signs and many magnitudes, so that the order of a sum shows in its
// bits.
template <class T>
T value_of(int rank, int64_t i, int salt) {
  uint32_t bits = mix32(static_cast<uint32_t>(i) * 2654435761u + static_cast<uint32_t>(rank) * 97u +
                        static_cast<uint32_t>(salt) * 1009u);
  if constexpr (std::is_integral_v<T>)
    return static_cast<T>(bits % 100);
  else
    return static_cast<T>((uniform_of(bits) - 0.5f) * static_cast<float>(1u << (bits % 12)));
}

template <class T>
std::vector<T> values_of(int rank, int64_t count, int salt = 0) {
  std::vector<T> v(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) v[static_cast<size_t>(i)] = value_of<T>(rank, i, salt);
  return v;
}

template <class T>
using Sum = std::conditional_t<std::is_same_v<T, bfloat16>, float, T>;

// The contract in two lines: left to right over the ranks, bf16 in f32 rounded once.
template <class T>
T expected(ReduceOp op, int ranks, int64_t i, int salt = 0) {
  auto at = [&](int r) { return static_cast<Sum<T>>(value_of<T>(r, i, salt)); };
  Sum<T> total = at(0);
  for (int r = 1; r < ranks; ++r) {
    if (op == ReduceOp::sum)
      total = static_cast<Sum<T>>(total + at(r));
    else
      total = op == ReduceOp::max ? std::max(total, at(r)) : std::min(total, at(r));
  }
  return static_cast<T>(total);
}

template <class T>
void expect_same(const T* got, const T* want, int64_t count, const char* what) {
  if (count == 0 || std::memcmp(got, want, static_cast<size_t>(count) * sizeof(T)) == 0) return;
  for (int64_t i = 0; i < count; ++i)
    check(std::memcmp(got + i, want + i, sizeof(T)) == 0, "{}: element {} of {} is {}, not {}",
          what, i, count, static_cast<double>(got[i]), static_cast<double>(want[i]));
}

template <class T>
void expect_sum(const T* got, int64_t count, ReduceOp op, int ranks, int salt, const char* what) {
  std::vector<T> want(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    want[static_cast<size_t>(i)] = expected<T>(op, ranks, i, salt);
  expect_same(got, want.data(), count, what);
}

}  // namespace adagate::suite
