// nvcuda::wmma for 16 x 16 x 16 products of bf16 with sums in f32. Where an element is in which
// lane's registers is as unknown as on a GPU. Loads and stores don't wait for other lanes: memory
// that they share must be ordered by __syncwarp or __syncthreads, as on a GPU. Products do.
#pragma once

#include <cstring>
#include <cuda_bf16.h>
#include <type_traits>

#include "tests/cuda/emulator/engine.h"
#include "tests/cuda/emulator/faults.h"

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

// Element e = 8 lane + i of the matrix by rows is x[i]. NaN until it is loaded or filled.
template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment {
  static_assert(M == 16 && N == 16 && K == 16);
  static_assert(std::is_same_v<Use, accumulator> ? std::is_same_v<T, float>
                                                 : std::is_same_v<T, __nv_bfloat16>);
  using element_type = T;
  static constexpr int num_elements = 8;
  T x[num_elements];

  fragment() { std::memset(static_cast<void*>(x), 0xFF, sizeof x); }
};

namespace detail {

constexpr int kElements = 8;

// The place of a lane's element i in a matrix whose rows or columns are `ld` apart.
inline size_t place(int i, bool by_rows, unsigned ld) {
  const unsigned e = adagate::emulator::running_thread->lane * kElements + static_cast<unsigned>(i);
  const size_t row = e / 16, column = e % 16;
  return by_rows ? row * ld + column : column * ld + row;
}

template <class T>
void check_place(const T* matrix, unsigned ld) {
  if (reinterpret_cast<uintptr_t>(matrix) % 32 != 0)
    adagate::emulator::stop("wmma: a matrix doesn't begin on a multiple of 32 bytes");
  if (ld * sizeof(T) % 16 != 0)
    adagate::emulator::stop("wmma: rows or columns are not a multiple of 16 bytes apart");
}

// As emulator::slot_value.
__attribute__((no_sanitize_thread)) inline float bf16_value(const unsigned char* at) {
  uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

// All lanes' parts of a matrix of bf16: by rows, 16 bytes a lane.
template <class Fragment>
const adagate::emulator::Slot* all_lanes(const Fragment& part) {
  auto all = adagate::emulator::warp_exchange(adagate::emulator::Meeting::matrix, 0xffffffffu,
                                              part.x, sizeof part.x);
  if (all.arrived != 0xffffffffu) adagate::emulator::stop("wmma: lanes of the warp are missing");
  return all.slots;
}

}  // namespace detail

template <class T>
void fill_fragment(fragment<accumulator, 16, 16, 16, T>& f, std::type_identity_t<T> value) {
  for (T& element : f.x) element = value;
}

template <class Use, class T, class Layout>
void load_matrix_sync(fragment<Use, 16, 16, 16, T, Layout>& f, const T* from, unsigned ld) {
  detail::check_place(from, ld);
  for (int i = 0; i < detail::kElements; ++i)
    f.x[i] = from[detail::place(i, std::is_same_v<Layout, row_major>, ld)];
}

template <class T>
void load_matrix_sync(fragment<accumulator, 16, 16, 16, T>& f, const T* from, unsigned ld,
                      layout_t layout) {
  detail::check_place(from, ld);
  for (int i = 0; i < detail::kElements; ++i)
    f.x[i] = from[detail::place(i, layout == mem_row_major, ld)];
}

template <class T>
void store_matrix_sync(T* to, const fragment<accumulator, 16, 16, 16, T>& f, unsigned ld,
                       layout_t layout) {
  detail::check_place(to, ld);
  for (int i = 0; i < detail::kElements; ++i)
    to[detail::place(i, layout == mem_row_major, ld)] = f.x[i];
}

// d = a b + c.
template <class T, class LayoutA, class LayoutB>
void mma_sync(fragment<accumulator, 16, 16, 16, float>& d,
              const fragment<matrix_a, 16, 16, 16, T, LayoutA>& a,
              const fragment<matrix_b, 16, 16, 16, T, LayoutB>& b,
              const fragment<accumulator, 16, 16, 16, float>& c) {
  const unsigned lane = adagate::emulator::running_thread->lane;
  float row[16];  // of a
  const auto* slots = detail::all_lanes(a);
  for (unsigned k = 0; k < 16; ++k)
    row[k] = detail::bf16_value(slots[lane / 2 * 2 + k / 8].bytes + k % 8 * 2);
  slots = detail::all_lanes(b);
  float sums[detail::kElements];
  for (unsigned i = 0; i < detail::kElements; ++i) sums[i] = c.x[i];
  for (unsigned k = 0; k < 16; ++k)
    for (unsigned i = 0; i < detail::kElements; ++i)
      sums[i] += row[k] * detail::bf16_value(slots[k * 2 + lane % 2].bytes + i * 2);
  for (unsigned i = 0; i < detail::kElements; ++i) d.x[i] = sums[i];
}

}  // namespace nvcuda::wmma
