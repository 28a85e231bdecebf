// Runs a grid on the calling OS thread, one block after the other. Every CUDA thread of a block is
// a fiber, which runs until it meets others: at a barrier of the block, or at a shuffle, vote or
// __syncwarp of its warp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector_types.h>

namespace adagate::emulator {

struct ThreadContext {
  uint3 thread, block;
  dim3 block_dim, grid_dim;
  unsigned lane, warp;
};

// The CUDA thread that runs on this OS thread; null outside of kernels.
extern constinit thread_local ThreadContext* running_thread;
// What runs on this OS thread: a kernel, or another piece of a stream's work; null: nothing.
extern constinit thread_local const char* running_kernel;

struct Launch {
  const char* kernel;  // as it is written at the launch
  dim3 grid, block;
  size_t shared_bytes;         // dynamic
  size_t shared_limit;         // of static and dynamic shared memory
  std::function<void()> body;  // what every CUDA thread does
};

// Stops the process when the launch is none that a GPU would take.
void check_launch(const Launch& launch);
void run_grid(const Launch& launch);

// What lanes of a warp can meet for.
enum class Meeting : uint8_t { shuffle, vote, sync, match, reduce, matrix };

// A lane's value in an exchange.
struct alignas(16) Slot {
  unsigned char bytes[16];
};
// The values of the lanes that have `arrived`; valid until the calling thread's next exchange.
struct Exchange {
  const Slot* slots;  // [32]
  uint32_t arrived;
};

// Waits for all lanes of `mask` that live. Lanes that call it with different meetings for one mask
// stop the process.
Exchange warp_exchange(Meeting meeting, uint32_t mask, const void* value, size_t bytes);
uint32_t live_lanes();

enum class Predicate : uint8_t { none, any, all, count };

// Waits for all threads of the block that live, and gives how many predicates hold, or whether.
// `file` and `line` are of the call: threads that wait at different ones stop the process.
int block_barrier(const char* file, int line, Predicate predicate = Predicate::none, int value = 0);

void* dynamic_shared();
// The shared array that a line of the kernel declares. `line` is an address of its own for it.
void* static_shared(const void* line, size_t bytes);

// Whether the running CUDA thread's stack has come to its end there.
bool stack_overflows_at(const void* address);

}  // namespace adagate::emulator
