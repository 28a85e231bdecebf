// Atomic operations on integers, for the types that CUDA has them for. There are none on
// floating-point numbers: sums whose order changes from run to run don't compile.
#pragma once

#include <atomic>

namespace adagate::emulator {

// Replaces *place by f(*place); gives what was there.
template <class T, class F>
T atomic_update(T* place, F f) {
  std::atomic_ref<T> at(*place);
  T old = at.load(std::memory_order_relaxed);
  while (!at.compare_exchange_weak(old, f(old), std::memory_order_relaxed)) {
  }
  return old;
}

}  // namespace adagate::emulator

#define ADAGATE_EMULATOR_ATOMICS(T)                                                \
  inline T atomicAdd(T* place, T value) {                                          \
    return std::atomic_ref<T>(*place).fetch_add(value, std::memory_order_relaxed); \
  }                                                                                \
  inline T atomicExch(T* place, T value) {                                         \
    return std::atomic_ref<T>(*place).exchange(value, std::memory_order_relaxed);  \
  }                                                                                \
  inline T atomicCAS(T* place, T expected, T value) {                              \
    std::atomic_ref<T>(*place).compare_exchange_strong(expected, value,            \
                                                       std::memory_order_relaxed); \
    return expected;                                                               \
  }                                                                                \
  inline T atomicAnd(T* place, T value) {                                          \
    return std::atomic_ref<T>(*place).fetch_and(value, std::memory_order_relaxed); \
  }                                                                                \
  inline T atomicOr(T* place, T value) {                                           \
    return std::atomic_ref<T>(*place).fetch_or(value, std::memory_order_relaxed);  \
  }                                                                                \
  inline T atomicXor(T* place, T value) {                                          \
    return std::atomic_ref<T>(*place).fetch_xor(value, std::memory_order_relaxed); \
  }
ADAGATE_EMULATOR_ATOMICS(int)
ADAGATE_EMULATOR_ATOMICS(unsigned)
ADAGATE_EMULATOR_ATOMICS(unsigned long long)
#undef ADAGATE_EMULATOR_ATOMICS

#define ADAGATE_EMULATOR_ATOMIC_EXTREMES(T)                                                      \
  inline T atomicMin(T* place, T value) {                                                        \
    return ::adagate::emulator::atomic_update(place,                                             \
                                              [=](T old) { return value < old ? value : old; }); \
  }                                                                                              \
  inline T atomicMax(T* place, T value) {                                                        \
    return ::adagate::emulator::atomic_update(place,                                             \
                                              [=](T old) { return value > old ? value : old; }); \
  }
ADAGATE_EMULATOR_ATOMIC_EXTREMES(int)
ADAGATE_EMULATOR_ATOMIC_EXTREMES(unsigned)
ADAGATE_EMULATOR_ATOMIC_EXTREMES(long long)
ADAGATE_EMULATOR_ATOMIC_EXTREMES(unsigned long long)
#undef ADAGATE_EMULATOR_ATOMIC_EXTREMES

inline int atomicSub(int* place, int value) {
  return std::atomic_ref<int>(*place).fetch_sub(value, std::memory_order_relaxed);
}
inline unsigned atomicSub(unsigned* place, unsigned value) {
  return std::atomic_ref<unsigned>(*place).fetch_sub(value, std::memory_order_relaxed);
}
inline unsigned atomicInc(unsigned* place, unsigned most) {
  return adagate::emulator::atomic_update(place,
                                          [=](unsigned old) { return old >= most ? 0u : old + 1; });
}

inline void __threadfence() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
}
inline void __threadfence_block() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
}
