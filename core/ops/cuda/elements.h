// Elements in registers: several of them are read and written at once where addresses allow it.
#pragma once

#include <cstdint>

#include "core/base/dtype.h"
#include "core/device/cuda/kernel.h"

namespace adagate::cuda {

// The most that one instruction moves.
constexpr int kPackBytes = 16;

// That many bytes of elements.
template <class T>
constexpr int kPack = kPackBytes / static_cast<int>(sizeof(T));

// Whether all of these addresses are multiples of `bytes`; null pointers, of what is not wanted,
// are.
template <class... Pointers>
bool aligned(size_t bytes, Pointers... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % bytes == 0) && ...);
}

// Whether rows of `cols` elements of `bytes` each that begin at these addresses can be moved in
// packs of 16 bytes: all begin on a multiple of 16.
template <class... Pointers>
bool packs(int64_t cols, size_t bytes, Pointers... pointers) {
  return static_cast<size_t>(cols) * bytes % kPackBytes == 0 && aligned(kPackBytes, pointers...);
}

// Calls f(std::integral_constant<int, width>) with the elements that a thread takes at a time: a
// pack of T where `packed`. f64, which serves comparisons and not speed, goes by one.
template <class T, class F>
void visit_width(bool packed, F&& f) {
  if constexpr (!std::is_same_v<T, double>) {
    if (packed) return f(std::integral_constant<int, kPack<T>>{});
  }
  f(std::integral_constant<int, 1>{});
}

// kWidth elements as they lie in memory, moved by as few instructions as their alignment allows.
template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth < kPackBytes ? sizeof(T) * kWidth : kPackBytes) Pack {
  T at[kWidth];
};

// values[0 .. kWidth) = from[0 .. kWidth), converted; `from` is aligned to the whole, or to 16
// bytes where that is more.
template <int kWidth, class C, class T>
__device__ inline void load(C (&values)[kWidth], const T* from) {
  const auto pack = *reinterpret_cast<const Pack<T, kWidth>*>(from);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) values[i] = static_cast<C>(pack.at[i]);
}

template <int kWidth, class C, class T>
__device__ inline void store(T* to, const C (&values)[kWidth]) {
  Pack<T, kWidth> pack;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) pack.at[i] = T(values[i]);
  *reinterpret_cast<Pack<T, kWidth>*>(to) = pack;
}

// The same at the end of a row: only `count` elements are left, perhaps more than kWidth. What is
// not there is read as zero.
template <int kWidth, class C, class T>
__device__ inline void load_some(C (&values)[kWidth], const T* from, int count) {
  if constexpr (kWidth == 1) {
    load(values, from);
  } else if (count >= kWidth) {
    load(values, from);
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) values[i] = i < count ? static_cast<C>(from[i]) : C(0);
  }
}

template <int kWidth, class C, class T>
__device__ inline void store_some(T* to, const C (&values)[kWidth], int count) {
  if constexpr (kWidth == 1) {
    store(to, values);
  } else if (count >= kWidth) {
    store(to, values);
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i)
      if (i < count) to[i] = T(values[i]);
  }
}

// The same for memory whose floating type is known at run time only, from its element `at` on: for
// what is read and written far less often than the rest.
template <int kWidth, class C>
__device__ inline void load_as(C (&values)[kWidth], DType type, const void* from, int64_t at) {
  if (type == DType::f32) return load(values, static_cast<const float*>(from) + at);
  if (type == DType::bf16) return load(values, static_cast<const bfloat16*>(from) + at);
  load(values, static_cast<const double*>(from) + at);
}

template <int kWidth, class C>
__device__ inline void store_as(DType type, void* to, int64_t at, const C (&values)[kWidth]) {
  if (type == DType::f32) return store(static_cast<float*>(to) + at, values);
  if (type == DType::bf16) return store(static_cast<bfloat16*>(to) + at, values);
  store(static_cast<double*>(to) + at, values);
}

}  // namespace adagate::cuda
