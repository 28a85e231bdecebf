// Stacks that are switched between by hand: one per CUDA thread.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) || defined(ADAGATE_EMULATOR_UCONTEXT)
#define ADAGATE_EMULATOR_PORTABLE 1
#include <ucontext.h>
#endif

namespace adagate::emulator {

// Runs on the thread that enters it, and stays with it until it has left for good.
class Fiber {
 public:
  using Entry = void (*)();

  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next enter() calls `entry`, which never returns. `colour` moves the stack's first frames:
  // stacks begin at pages, so without it all fibers' hot lines would share a few cache sets.
  void start(Entry entry, size_t colour);
  // Runs the fiber until it leaves.
  void enter();
  // From the fiber that runs back to where it was entered.
  static void leave(bool finished);

  // Whether the address is on the page below the stack, where a stack that is too deep arrives.
  bool overflows_at(const void* address) const;

 private:
  unsigned char* stack_ = nullptr;
#ifdef ADAGATE_EMULATOR_PORTABLE
  ucontext_t context_;
#else
  void* stack_pointer_ = nullptr;
#endif
  void* asan_fake_stack_ = nullptr;
  void* tsan_fiber_ = nullptr;
};

}  // namespace adagate::emulator
