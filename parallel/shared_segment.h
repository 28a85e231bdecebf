// Memory that several processes of a node map, and what one process knows about it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <sys/types.h>
#include <vector>

#include "parallel/mpi_calls.h"
#include "parallel/peer_memory.h"

namespace adagate {

// `bytes` of zeroed memory, mapped by all ranks of `comm` (all on one node) as one range, maybe at
// different addresses. This rank uses [own_offset, own_offset + own_bytes): its pages are made
// present here, near this rank's cores. Null on all ranks where one of them cannot map it.
// Collective.
std::shared_ptr<std::byte> map_shared_segment(MPI_Comm comm, size_t bytes, size_t own_offset,
                                              size_t own_bytes);

// A segment of one part per rank, at equal distances.
struct Segment {
  uint64_t id = 0;
  const std::byte* own = nullptr;
  size_t part_bytes = 0;
  std::vector<std::byte*> parts;  // by rank index on the node; null where the rank has no part
};

// Buffers of processes: shared segments are mapped, everything else is copied by the kernel
// (process_vm_readv) where that is permitted.
class ProcessMemory final : public PeerMemory {
 public:
  ProcessMemory(int self, std::vector<int64_t> process_ids)
      : self_(self), process_ids_(std::move(process_ids)) {}

  void add(Segment segment) { segments_.push_back(std::move(segment)); }
  void remove(uint64_t id);
  void set_can_copy(bool on) { can_copy_ = on; }
  // Copies a probe of every peer; tells whether all of them could be read.
  bool probe(const std::vector<uint64_t>& addresses, uint64_t expected) const;

  BufferName name(const void* data) const override;
  void* map(int peer, BufferName name) const override;
  bool can_copy() const override { return can_copy_; }
  int copy_from(int peer, BufferName name, int64_t byte_offset, void* to,
                int64_t bytes) const override;

 private:
  int read(int peer, uint64_t address, void* to, size_t bytes) const;  // 0 or errno

  int self_;
  std::vector<int64_t> process_ids_;
  std::vector<Segment> segments_;
  bool can_copy_ = false;
};

}  // namespace adagate
