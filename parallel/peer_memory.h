// How one rank reaches the buffers of another.
#pragma once

#include <cstddef>
#include <cstdint>

namespace adagate {

// A buffer as its owner names it to the others: an offset in a shared segment, or (segment 0) an
// address in the owner's own memory.
struct BufferName {
  uint64_t segment = 0;
  uint64_t offset = 0;
};

class PeerMemory {
 public:
  virtual ~PeerMemory() = default;
  virtual BufferName name(const void* data) const = 0;
  // The peer's buffer in this rank's address space; null where it is not mapped.
  virtual void* map(int peer, BufferName name) const = 0;
  // Whether copy_from works for buffers that are not mapped; the same on all ranks.
  virtual bool can_copy() const = 0;
  // 0, or the errno of why the peer's memory can't be read: it may have ended.
  virtual int copy_from(int peer, BufferName name, int64_t byte_offset, void* to,
                        int64_t bytes) const = 0;
};

}  // namespace adagate
