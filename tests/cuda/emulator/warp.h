// Barriers, shuffles, votes: for the types that CUDA has them for, with its conversions.
#pragma once

#include <bit>
#include <cstring>

#include "tests/cuda/emulator/engine.h"
#include "tests/cuda/emulator/faults.h"

namespace adagate::emulator {

constexpr unsigned kFullWarp = 0xffffffffu;

// Not watched by ThreadSanitizer: who has made the slots' memory is no thread of the kernel's.
template <class T>
__attribute__((no_sanitize_thread)) T slot_value(const Slot& slot) {
  T value;
  std::memcpy(&value, slot.bytes, sizeof value);
  return value;
}

// The value of lane `source`; the lane's own where the source lies outside its part of the warp.
template <class T>
T shuffle(unsigned mask, T value, unsigned source, bool inside) {
  Exchange all = warp_exchange(Meeting::shuffle, mask, &value, sizeof value);
  if (!inside) return value;
  if (!(all.arrived >> source & 1u))
    stop("a shuffle reads lane " + std::to_string(source) +
         ", which is not in the mask or has ended");
  return slot_value<T>(all.slots[source]);
}

// Lanes of the warp's part of `width` that the calling lane belongs to: [first, first + width).
struct WarpPart {
  unsigned lane, first, width;
  explicit WarpPart(int parts)
      : lane(running_thread->lane),
        first(lane & ~(static_cast<unsigned>(parts) - 1)),
        width(static_cast<unsigned>(parts)) {
    if (!std::has_single_bit(width) || width > 32) stop("a shuffle's width is no power of two");
  }
};

template <class T>
T shuffle_from(unsigned mask, T value, int source, int width) {
  WarpPart part(width);
  return shuffle(mask, value, part.first | (static_cast<unsigned>(source) & (part.width - 1)),
                 true);
}
template <class T>
T shuffle_xor(unsigned mask, T value, int with, int width) {
  WarpPart part(width);
  unsigned source = part.lane ^ static_cast<unsigned>(with);
  return shuffle(mask, value, source % 32, source < part.first + part.width);
}
template <class T>
T shuffle_down(unsigned mask, T value, unsigned by, int width) {
  WarpPart part(width);
  bool inside = part.lane - part.first + by < part.width;
  return shuffle(mask, value, inside ? part.lane + by : part.lane, inside);
}
template <class T>
T shuffle_up(unsigned mask, T value, unsigned by, int width) {
  WarpPart part(width);
  bool inside = part.lane - part.first >= by;
  return shuffle(mask, value, inside ? part.lane - by : part.lane, inside);
}

// f over the values of all lanes of the mask, lowest lane first.
template <class T, class F>
T reduce(unsigned mask, T value, F f) {
  Exchange all = warp_exchange(Meeting::reduce, mask, &value, sizeof value);
  T result{};
  bool first = true;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!(all.arrived >> lane & 1u)) continue;
    T next = slot_value<T>(all.slots[lane]);
    result = first ? next : f(result, next);
    first = false;
  }
  return result;
}

template <class T>
unsigned match_any(unsigned mask, T value) {
  Exchange all = warp_exchange(Meeting::match, mask, &value, sizeof value);
  unsigned same = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!(all.arrived >> lane & 1u)) continue;
    const T other = slot_value<T>(all.slots[lane]);
    if (std::memcmp(&other, &value, sizeof value) == 0) same |= 1u << lane;
  }
  return same;
}

}  // namespace adagate::emulator

#define ADAGATE_EMULATOR_SHUFFLES(T)                                               \
  inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {       \
    return ::adagate::emulator::shuffle_from(mask, value, source, width);          \
  }                                                                                \
  inline T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32) {     \
    return ::adagate::emulator::shuffle_xor(mask, value, with, width);             \
  }                                                                                \
  inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) { \
    return ::adagate::emulator::shuffle_down(mask, value, by, width);              \
  }                                                                                \
  inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {   \
    return ::adagate::emulator::shuffle_up(mask, value, by, width);                \
  }                                                                                \
  inline unsigned __match_any_sync(unsigned mask, T value) {                       \
    return ::adagate::emulator::match_any(mask, value);                            \
  }
ADAGATE_EMULATOR_SHUFFLES(int)
ADAGATE_EMULATOR_SHUFFLES(unsigned)
ADAGATE_EMULATOR_SHUFFLES(long)
ADAGATE_EMULATOR_SHUFFLES(unsigned long)
ADAGATE_EMULATOR_SHUFFLES(long long)
ADAGATE_EMULATOR_SHUFFLES(unsigned long long)
ADAGATE_EMULATOR_SHUFFLES(float)
ADAGATE_EMULATOR_SHUFFLES(double)
#undef ADAGATE_EMULATOR_SHUFFLES

#define ADAGATE_EMULATOR_REDUCTIONS(T)                                                       \
  inline T __reduce_add_sync(unsigned mask, T value) {                                       \
    return ::adagate::emulator::reduce(mask, value, [](T a, T b) { return a + b; });         \
  }                                                                                          \
  inline T __reduce_min_sync(unsigned mask, T value) {                                       \
    return ::adagate::emulator::reduce(mask, value, [](T a, T b) { return a < b ? a : b; }); \
  }                                                                                          \
  inline T __reduce_max_sync(unsigned mask, T value) {                                       \
    return ::adagate::emulator::reduce(mask, value, [](T a, T b) { return a > b ? a : b; }); \
  }
ADAGATE_EMULATOR_REDUCTIONS(int)
ADAGATE_EMULATOR_REDUCTIONS(unsigned)
#undef ADAGATE_EMULATOR_REDUCTIONS
inline unsigned __reduce_or_sync(unsigned mask, unsigned value) {
  return adagate::emulator::reduce(mask, value, [](unsigned a, unsigned b) { return a | b; });
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value) {
  return adagate::emulator::reduce(mask, value, [](unsigned a, unsigned b) { return a & b; });
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const uint32_t mine = predicate != 0;
  auto all = adagate::emulator::warp_exchange(adagate::emulator::Meeting::vote, mask, &mine, 4);
  unsigned votes = 0;
  for (unsigned lane = 0; lane < 32; ++lane)
    if (all.arrived >> lane & 1u)
      votes |= adagate::emulator::slot_value<uint32_t>(all.slots[lane]) << lane;
  return votes;
}
inline int __any_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, !predicate) == 0;
}
inline void __syncwarp(unsigned mask = adagate::emulator::kFullWarp) {
  adagate::emulator::warp_exchange(adagate::emulator::Meeting::sync, mask, nullptr, 0);
}
inline unsigned __activemask() {
  return adagate::emulator::live_lanes();
}

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  adagate::emulator::block_barrier(file, line);
}
inline int __syncthreads_or(int predicate, const char* file = __builtin_FILE(),
                            int line = __builtin_LINE()) {
  return adagate::emulator::block_barrier(file, line, adagate::emulator::Predicate::any, predicate);
}
inline int __syncthreads_and(int predicate, const char* file = __builtin_FILE(),
                             int line = __builtin_LINE()) {
  return adagate::emulator::block_barrier(file, line, adagate::emulator::Predicate::all, predicate);
}
inline int __syncthreads_count(int predicate, const char* file = __builtin_FILE(),
                               int line = __builtin_LINE()) {
  return adagate::emulator::block_barrier(file, line, adagate::emulator::Predicate::count,
                                          predicate);
}
