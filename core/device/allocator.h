// Caching allocator for tensor memory: a warm training step asks the system for nothing, because
// fresh pages cost as much as the arithmetic done in them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/device/memory_block.h"

namespace adagate {

struct AllocatorStats {
  int64_t bytes_in_use = 0;
  int64_t peak_bytes_in_use = 0;
  int64_t bytes_reserved = 0;    // held from the system
  int64_t system_calls = 0;      // blocks asked from the system so far
  int64_t allocations = 0;       // blocks handed out so far
  int64_t bytes_handed_out = 0;  // in those blocks: grows with every temporary and copy
};

// CPU memory, 64-byte aligned, contents undefined. Blocks of 1 MiB and more are backed by huge
// pages where the system offers them. Thread-safe. Throws Error naming the size when memory is
// exhausted.
MemoryBlock allocate_cpu(size_t bytes);
void release_cpu(MemoryBlock block);

AllocatorStats allocator_stats();
void reset_peak_memory();

// Gives cached blocks that are not in use back to the system.
void trim_allocator();

}  // namespace adagate
