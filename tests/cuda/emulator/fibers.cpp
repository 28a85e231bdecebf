#include "tests/cuda/emulator/fibers.h"

#include <sys/mman.h>

#include "tests/cuda/emulator/faults.h"
#include "tests/cuda/emulator/sanitizers.h"

#ifndef ADAGATE_EMULATOR_PORTABLE
// Saves what the ABI lets a callee keep on the stack that is left, and takes it from the other.
extern "C" void adagate_emulator_switch(void** left, void* entered);
asm(R"(
.text
.weak adagate_emulator_switch
.type adagate_emulator_switch,@function
adagate_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size adagate_emulator_switch,.-adagate_emulator_switch
)");
#endif

namespace adagate::emulator {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kStackBytes = (kAsan ? 512 : 128) * 1024;
constexpr size_t kColours = 61;

// Where fibers are entered from: the OS thread's own stack.
struct Scheduler {
#ifdef ADAGATE_EMULATOR_PORTABLE
  ucontext_t context;
#else
  void* stack_pointer = nullptr;
#endif
  Fiber::Entry entry = nullptr;
  void* asan_fake_stack = nullptr;
  const void* asan_bottom = nullptr;
  size_t asan_size = 0;
  void* tsan_fiber = nullptr;
};
thread_local Scheduler scheduler;
constinit thread_local Fiber* running_fiber = nullptr;

void first_frame() {
#ifdef ADAGATE_EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &scheduler.asan_bottom, &scheduler.asan_size);
#endif
  scheduler.entry();
}

}  // namespace

Fiber::Fiber() {
  void* map = mmap(nullptr, kStackBytes + kPage, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED || mprotect(map, kPage, PROT_NONE) != 0)
    stop("no memory for the stack of a CUDA thread");
  stack_ = static_cast<unsigned char*>(map) + kPage;
#ifdef ADAGATE_EMULATOR_TSAN
  tsan_fiber_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
#ifdef ADAGATE_EMULATOR_TSAN
  __tsan_destroy_fiber(tsan_fiber_);
#endif
  munmap(stack_ - kPage, kStackBytes + kPage);
}

bool Fiber::overflows_at(const void* address) const {
  const auto* at = static_cast<const unsigned char*>(address);
  return at >= stack_ - kPage && at < stack_;
}

void Fiber::start(Entry entry, size_t colour) {
  scheduler.entry = entry;
  size_t bytes = kStackBytes - colour % kColours * 64;
  allow(stack_ + kStackBytes - 2 * kPage, 2 * kPage);  // of frames that never returned
#ifdef ADAGATE_EMULATOR_PORTABLE
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = bytes;
  context_.uc_link = nullptr;
  makecontext(&context_, first_frame, 0);
#else
  // As after a call: the stack's address is 8 more than a multiple of 16 at the first instruction.
  auto** top = reinterpret_cast<void**>(stack_ + bytes);
  for (int i = 0; i < 3; ++i) *--top = nullptr;
  *--top = reinterpret_cast<void*>(&first_frame);
  for (int i = 0; i < 6; ++i) *--top = nullptr;  // the six registers
  stack_pointer_ = top;
#endif
  asan_fake_stack_ = nullptr;
}

void Fiber::enter() {
  running_fiber = this;
#ifdef ADAGATE_EMULATOR_ASAN
  __sanitizer_start_switch_fiber(&scheduler.asan_fake_stack, stack_, kStackBytes);
#endif
#ifdef ADAGATE_EMULATOR_TSAN
  scheduler.tsan_fiber = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(tsan_fiber_, 1);
#endif
#ifdef ADAGATE_EMULATOR_PORTABLE
  swapcontext(&scheduler.context, &context_);
#else
  adagate_emulator_switch(&scheduler.stack_pointer, stack_pointer_);
#endif
#ifdef ADAGATE_EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(scheduler.asan_fake_stack, nullptr, nullptr);
#endif
  running_fiber = nullptr;
}

void Fiber::leave([[maybe_unused]] bool finished) {
  Fiber& fiber = *running_fiber;
#ifdef ADAGATE_EMULATOR_ASAN
  __sanitizer_start_switch_fiber(finished ? nullptr : &fiber.asan_fake_stack_,
                                 scheduler.asan_bottom, scheduler.asan_size);
#endif
#ifdef ADAGATE_EMULATOR_TSAN
  __tsan_switch_to_fiber(scheduler.tsan_fiber, 1);
#endif
#ifdef ADAGATE_EMULATOR_PORTABLE
  swapcontext(&fiber.context_, &scheduler.context);
#else
  adagate_emulator_switch(&fiber.stack_pointer_, scheduler.stack_pointer);
#endif
#ifdef ADAGATE_EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(fiber.asan_fake_stack_, &scheduler.asan_bottom,
                                  &scheduler.asan_size);
#endif
}

}  // namespace adagate::emulator
