#include "tests/cuda/emulator/engine.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "tests/cuda/emulator/block_order.h"
#include "tests/cuda/emulator/config.h"
#include "tests/cuda/emulator/faults.h"
#include "tests/cuda/emulator/fibers.h"
#include "tests/cuda/emulator/limits.h"
#include "tests/cuda/emulator/sanitizers.h"
#include "tests/cuda/emulator/shared_memory.h"

namespace adagate::emulator {

constinit thread_local ThreadContext* running_thread = nullptr;
constinit thread_local const char* running_kernel = nullptr;

namespace {

constexpr unsigned kWarp = 32;

enum class State : uint8_t { fresh, ready, at_barrier, in_warp, done };

struct CudaThread {
  ThreadContext context;
  State state = State::fresh;
  const char* file = nullptr;  // of the barrier that it has come to last
  int line = 0;
  std::unique_ptr<Fiber> fiber;
};

// Lanes of one warp that meet. Free for others once every lane has its result.
struct Collective {
  bool open = false;
  Meeting meeting{};
  uint32_t mask = 0, arrived = 0, unread = 0;
  Slot slots[kWarp];
};

struct Warp {
  uint32_t alive = 0;
  std::deque<Collective> collectives;

  Collective& of(uint32_t mask, Meeting meeting) {
    for (Collective& c : collectives)
      if (c.open && c.mask == mask) return c;
    for (Collective& c : collectives)
      if (!c.open && c.unread == 0) return open(c, mask, meeting);
    return open(collectives.emplace_back(), mask, meeting);
  }
  static Collective& open(Collective& c, uint32_t mask, Meeting meeting) {
    c.open = true;
    c.meeting = meeting;
    c.mask = mask;
    c.arrived = 0;
    return c;
  }
};

// What orders a grid, for ThreadSanitizer: its start before all its threads, these before its end.
struct GridKeys {
  char start = 0, end = 0;
};

// The blocks that one OS thread runs.
class Engine {
 public:
  void run(const Launch& launch, const BlockOrder& blocks, size_t first, size_t step,
           GridKeys& keys);

  Exchange exchange(Meeting meeting, uint32_t mask, const void* value, size_t bytes);
  int barrier(const char* file, int line, Predicate predicate, int value);
  uint32_t live_lanes() const { return warps_[current_->context.warp].alive; }
  SharedMemory& shared() { return shared_; }
  bool overflows_at(const void* address) const {
    return current_ && current_->fiber && current_->fiber->overflows_at(address);
  }

 private:
  static void fiber_body();
  void run_block(uint3 block);
  void begin_block(uint3 block);
  void resume(unsigned index);
  void retire(unsigned index);
  void open_barrier();
  void finish(unsigned warp, Collective& collective);
  [[noreturn]] void stop_in_deadlock() const;
  // Calls f(0 .. n - 1), from the end in reverse order.
  template <class F>
  void in_order(unsigned n, F&& f) const {
    for (unsigned i = 0; i < n; ++i) f(config().order == Order::reverse ? n - 1 - i : i);
  }

  const Launch* launch_ = nullptr;
  GridKeys* grid_keys_ = nullptr;
  unsigned threads_in_block_ = 0, live_ = 0, at_barrier_ = 0;
  unsigned barriers_ = 0, blocks_ = 0;              // passed so far
  char barrier_keys_[2] = {}, block_keys_[2] = {};  // by turns
  int count_ = 0, last_count_ = 0, last_live_ = 0;  // of predicates that hold, at a barrier
  const char* barrier_file_ = nullptr;
  int barrier_line_ = 0;

  SharedMemory shared_;
  std::vector<CudaThread> threads_ = std::vector<CudaThread>(kMostThreads);
  std::vector<Warp> warps_ = std::vector<Warp>(kMostThreads / kWarp);
  ReadyThreads ready_;
  std::vector<std::unique_ptr<Fiber>> fibers_;  // that no thread has
  CudaThread* current_ = nullptr;
};

constinit thread_local Engine* engine = nullptr;

Engine& own_engine() {
  thread_local std::unique_ptr<Engine> own;
  if (!own) own = std::make_unique<Engine>();
  return *own;
}

void Engine::run(const Launch& launch, const BlockOrder& blocks, size_t first, size_t step,
                 GridKeys& keys) {
  engine = this;
  launch_ = &launch;
  grid_keys_ = &keys;
  running_kernel = launch.kernel;
  watch_for_faults();
  shared_.begin_launch(launch.shared_bytes, launch.shared_limit);
  const dim3 grid = launch.grid;
  for (size_t turn = first; turn < blocks.size(); turn += step) {
    size_t i = blocks[turn];
    run_block({static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
               static_cast<unsigned>(i / (size_t{grid.x} * grid.y))});
  }
  acquire(&keys.end);
  running_kernel = nullptr;
  engine = nullptr;
}

// The threads' contexts, and the block's memory. For ThreadSanitizer a block of this OS thread
// comes after the one before: they share the fibers and the memory.
void Engine::begin_block(uint3 block) {
  const dim3 dim = launch_->block;
  threads_in_block_ = live_ = dim.x * dim.y * dim.z;
  at_barrier_ = 0;
  count_ = 0;
  acquire(&block_keys_[blocks_ & 1u]);
  shared_.begin_block();
  release(&block_keys_[blocks_ & 1u]);
  ++blocks_;
  ready_.reset(threads_in_block_, config().order, config().seed + blocks_);
  for (unsigned w = 0; w * kWarp < threads_in_block_; ++w) warps_[w].alive = 0;
  for (unsigned i = 0; i < threads_in_block_; ++i) {
    threads_[i].state = State::fresh;
    threads_[i].context = {uint3{i % dim.x, i / dim.x % dim.y, i / (dim.x * dim.y)},
                           block,
                           dim,
                           launch_->grid,
                           i % kWarp,
                           i / kWarp};
    warps_[i / kWarp].alive |= 1u << i % kWarp;
  }
  in_order(threads_in_block_, [&](unsigned i) { ready_.put(i); });
}

void Engine::run_block(uint3 block) {
  begin_block(block);
  while (live_ > 0) {
    if (ready_.empty()) stop_in_deadlock();
    unsigned i = ready_.take();
    resume(i);
    if (threads_[i].state == State::done) retire(i);
  }
  shared_.end_block();
}

void Engine::fiber_body() {
  Engine& e = *engine;
  acquire(&e.grid_keys_->start);
  acquire(&e.block_keys_[(e.blocks_ & 1u) ^ 1u]);
  e.launch_->body();
  release(&e.block_keys_[e.blocks_ & 1u]);
  release(&e.grid_keys_->end);
  e.current_->state = State::done;
  Fiber::leave(true);
}

void Engine::resume(unsigned index) {
  CudaThread& thread = threads_[index];
  if (thread.state == State::fresh) {
    if (!thread.fiber && !fibers_.empty()) {
      thread.fiber = std::move(fibers_.back());
      fibers_.pop_back();
    }
    if (!thread.fiber) thread.fiber = std::make_unique<Fiber>();
    thread.fiber->start(&Engine::fiber_body, index);
  }
  thread.state = State::ready;
  current_ = &thread;
  running_thread = &thread.context;
  thread.fiber->enter();
  current_ = nullptr;
  running_thread = nullptr;
}

// A thread that has ended is waited for no longer. Its stack, still in the cache, goes to the next
// one; but ThreadSanitizer would take these two for one thread.
void Engine::retire(unsigned index) {
  if (!kTsan) fibers_.push_back(std::move(threads_[index].fiber));
  --live_;
  Warp& warp = warps_[index / kWarp];
  warp.alive &= ~(1u << index % kWarp);
  for (Collective& c : warp.collectives)
    if (c.open && (c.arrived & warp.alive) != 0 &&
        (c.mask & warp.alive) == (c.arrived & warp.alive))
      finish(index / kWarp, c);
  if (live_ > 0 && at_barrier_ == live_) open_barrier();
}

void Engine::open_barrier() {
  last_count_ = count_;
  last_live_ = static_cast<int>(at_barrier_);
  count_ = 0;
  at_barrier_ = 0;
  ++barriers_;
  in_order(threads_in_block_, [&](unsigned i) {
    if (threads_[i].state == State::at_barrier) ready_.put(i);
  });
}

int Engine::barrier(const char* file, int line, Predicate predicate, int value) {
  CudaThread& thread = *current_;
  thread.file = file;
  thread.line = line;
  if (at_barrier_ == 0) {
    barrier_file_ = file;
    barrier_line_ = line;
  } else if (line != barrier_line_ || std::strcmp(file, barrier_file_) != 0) {
    stop(
        fmt::format("threads of one block wait at different barriers: this one at {}:{}, others "
                    "at {}:{}",
                    file, line, barrier_file_, barrier_line_));
  }
  char* key = &barrier_keys_[barriers_ & 1u];
  release(key);
  if (value) ++count_;
  thread.state = State::at_barrier;
  if (++at_barrier_ == live_) open_barrier();
  Fiber::leave(false);
  acquire(key);
  switch (predicate) {
    case Predicate::any:
      return last_count_ > 0;
    case Predicate::all:
      return last_count_ == last_live_;
    default:
      return last_count_;
  }
}

// Every lane that has come can go on; with its result, even when it exits before others read.
void Engine::finish(unsigned warp, Collective& c) {
  c.open = false;
  c.unread = c.arrived;
  in_order(kWarp, [&](unsigned lane) {
    if (c.arrived >> lane & 1u) ready_.put(warp * kWarp + lane);
  });
}

Exchange Engine::exchange(Meeting meeting, uint32_t mask, const void* value, size_t bytes) {
  CudaThread& thread = *current_;
  const unsigned lane = thread.context.lane;
  Warp& warp = warps_[thread.context.warp];
  if (!(mask >> lane & 1u)) stop(fmt::format("lane {} is not in its own mask {:08x}", lane, mask));
  Collective& c = warp.of(mask, meeting);
  if (c.meeting != meeting)
    stop("lanes of one warp meet in different operations (shuffle, vote, sync, ..)");
  // Plain copies: ThreadSanitizer would see a call of memcpy.
  unsigned char* slot = c.slots[lane].bytes;
  const auto* from = static_cast<const unsigned char*>(value);
  if (bytes == 4)
    std::memcpy(slot, from, 4);
  else if (bytes == 8)
    std::memcpy(slot, from, 8);
  else if (bytes == 16)
    std::memcpy(slot, from, 16);
  c.arrived |= 1u << lane;
  if (meeting == Meeting::sync) release(c.slots);  // the others order no memory
  thread.state = State::in_warp;
  if ((c.arrived & warp.alive) == (mask & warp.alive)) finish(thread.context.warp, c);
  Fiber::leave(false);
  if (meeting == Meeting::sync) acquire(c.slots);
  c.unread &= ~(1u << lane);
  return {c.slots, c.arrived};
}

void Engine::stop_in_deadlock() const {
  unsigned at_barrier = 0, in_warp = 0;
  const CudaThread *barrier = nullptr, *collective = nullptr;
  for (unsigned i = 0; i < threads_in_block_; ++i) {
    const CudaThread& thread = threads_[i];
    if (thread.state == State::at_barrier && at_barrier++ == 0) barrier = &thread;
    if (thread.state == State::in_warp && in_warp++ == 0) collective = &thread;
  }
  auto name = [](const CudaThread* thread) {
    if (!thread) return std::string("none");
    const uint3 at = thread->context.thread;
    return fmt::format("({},{},{})", at.x, at.y, at.z);
  };
  const CudaThread* first = barrier ? barrier : collective;
  running_thread = first ? const_cast<ThreadContext*>(&first->context) : nullptr;
  stop(fmt::format(
      "the block cannot go on: {} threads wait at a barrier (the first: {}, at "
      "{}:{}), {} with lanes of their warp (the first: {}), {} have ended",
      at_barrier, name(barrier), barrier ? barrier->file : "-", barrier ? barrier->line : 0,
      in_warp, name(collective), threads_in_block_ - live_));
}

}  // namespace

void check_launch(const Launch& launch) {
  const dim3 grid = launch.grid, block = launch.block;
  const size_t threads = size_t{block.x} * block.y * block.z;
  bool taken = threads > 0 && threads <= kMostThreads && block.z <= kMostThreadsZ && grid.x > 0 &&
               grid.y > 0 && grid.z > 0 && grid.x <= kMostGridX && grid.y <= kMostGridYZ &&
               grid.z <= kMostGridYZ && launch.shared_bytes <= launch.shared_limit;
  if (!taken)
    stop(
        fmt::format("no GPU takes the launch of {}: grid ({},{},{}), block ({},{},{}), {} bytes "
                    "of shared memory of {} that it may have",
                    launch.kernel, grid.x, grid.y, grid.z, block.x, block.y, block.z,
                    launch.shared_bytes, launch.shared_limit));
}

void run_grid(const Launch& launch) {
  if (running_thread) stop(fmt::format("{} is launched by a kernel", launch.kernel));
  const size_t blocks = size_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  const BlockOrder order(blocks, config().order, config().seed);
  static thread_local GridKeys keys_of_thread;
  GridKeys& keys = keys_of_thread;
  release(&keys.start);
  const size_t workers = std::min(blocks, static_cast<size_t>(std::max(1, config().os_threads)));
  std::vector<std::thread> others;
  for (size_t k = 1; k < workers; ++k)
    others.emplace_back([&, k] { own_engine().run(launch, order, k, workers, keys); });
  own_engine().run(launch, order, 0, workers, keys);
  for (std::thread& other : others) other.join();
  acquire(&keys.end);
}

Exchange warp_exchange(Meeting meeting, uint32_t mask, const void* value, size_t bytes) {
  return engine->exchange(meeting, mask, value, bytes);
}
uint32_t live_lanes() {
  return engine->live_lanes();
}
int block_barrier(const char* file, int line, Predicate predicate, int value) {
  return engine->barrier(file, line, predicate, value);
}
void* dynamic_shared() {
  return engine->shared().dynamic();
}
void* static_shared(const void* line, size_t bytes) {
  return engine->shared().array(line, bytes);
}
bool stack_overflows_at(const void* address) {
  return engine && engine->overflows_at(address);
}

}  // namespace adagate::emulator
