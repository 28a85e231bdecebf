// What the sanitizers must be told by a program that switches stacks. AddressSanitizer is seen by
// itself. For ThreadSanitizer fibers.cpp, engine.cpp and shared_memory.cpp are compiled without
// -fsanitize=thread and with ADAGATE_EMULATOR_TSAN: the engine's own accesses are none of the
// kernel's, and only launches, barriers and __syncwarp order the CUDA threads.
#pragma once

#include <cstddef>

#ifdef __SANITIZE_ADDRESS__
#define ADAGATE_EMULATOR_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef ADAGATE_EMULATOR_TSAN
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* key);
void __tsan_release(void* key);
}
#endif

namespace adagate::emulator {

#ifdef ADAGATE_EMULATOR_ASAN
constexpr bool kAsan = true;
static inline void forbid(const void* from, size_t bytes) {
  __asan_poison_memory_region(from, bytes);
}
static inline void allow(const void* from, size_t bytes) {
  __asan_unpoison_memory_region(from, bytes);
}
#else
constexpr bool kAsan = false;
static inline void forbid(const void*, size_t) {}
static inline void allow(const void*, size_t) {}
#endif

// What happened before a release() of a key is before what follows an acquire() of it. Each file's
// own: they differ.
#ifdef ADAGATE_EMULATOR_TSAN
constexpr bool kTsan = true;
static inline void acquire(void* key) {
  __tsan_acquire(key);
}
static inline void release(void* key) {
  __tsan_release(key);
}
#else
constexpr bool kTsan = false;
static inline void acquire(void*) {}
static inline void release(void*) {}
#endif

// In any of the emulator's files.
#if defined(ADAGATE_EMULATOR_ASAN) || defined(ADAGATE_EMULATOR_TSAN) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

}  // namespace adagate::emulator
