#include "parallel/shared_segment.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/base/error.h"
#include "parallel/host_pages.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace adagate {
namespace {

// The kernel's handle of an unnamed file in memory: nothing is left behind however the ranks end,
// and no limit of /dev/shm applies.
int open_segment(MPI_Comm comm, size_t bytes) {
  int rank;
  ADAGATE_MPI(MPI_Comm_rank(comm, &rank));
  int64_t handle[2] = {getpid(), -1};
  if (rank == 0) {
    int fd = memfd_create("adagate", MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, static_cast<off_t>(bytes)) == 0)
      handle[1] = fd;
    else if (fd >= 0)
      close(fd);
  }
  ADAGATE_MPI(MPI_Bcast(handle, 2, MPI_INT64_T, 0, comm));
  if (rank == 0 || handle[1] < 0) return static_cast<int>(handle[1]);
  return open(fmt::format("/proc/{}/fd/{}", handle[0], handle[1]).c_str(), O_RDWR | O_CLOEXEC);
}

bool all_agree(MPI_Comm comm, bool mine) {
  int ok = mine;
  ADAGATE_MPI(MPI_Allreduce(MPI_IN_PLACE, &ok, 1, MPI_INT, MPI_MIN, comm));
  return ok != 0;
}

// Makes pages present now: a shortage shows here and not as a signal later.
bool populate(int fd, std::byte* base, size_t offset, size_t bytes) {
  size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  size_t first = offset / page * page, last = round_up(offset + bytes, page);
  if (madvise(base + first, last - first, MADV_POPULATE_WRITE) == 0) return true;
  if (errno != EINVAL) return false;
  return posix_fallocate(fd, static_cast<off_t>(first), static_cast<off_t>(last - first)) == 0;
}

}  // namespace

std::shared_ptr<std::byte> map_shared_segment(MPI_Comm comm, size_t bytes, size_t own_offset,
                                              size_t own_bytes) {
  size_t length = round_up(bytes, bytes >= kHugePage ? kHugePage : 4096);
  int fd = open_segment(comm, length);
  void* raw = MAP_FAILED;
  if (fd >= 0) raw = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  bool ok = raw != MAP_FAILED;
  auto* base = static_cast<std::byte*>(raw);
  if (ok && length >= kHugePage) madvise(raw, length, MADV_HUGEPAGE);
  if (ok && own_bytes > 0) ok = populate(fd, base, own_offset, own_bytes);
  bool agreed = all_agree(comm, ok);
  // Every page exists by now; mapping the peers' pages as well saves the faults in the first sum.
  if (agreed) madvise(raw, length, MADV_POPULATE_WRITE);
  if (fd >= 0) close(fd);
  if (!agreed) {
    if (raw != MAP_FAILED) munmap(raw, length);
    return nullptr;
  }
  return {base, [length](std::byte* p) { munmap(p, length); }};
}

void ProcessMemory::remove(uint64_t id) {
  std::erase_if(segments_, [&](const Segment& s) { return s.id == id; });
}

BufferName ProcessMemory::name(const void* data) const {
  auto* p = static_cast<const std::byte*>(data);
  for (const Segment& s : segments_)
    if (p >= s.own && p < s.own + s.part_bytes) return {s.id, static_cast<uint64_t>(p - s.own)};
  return {0, reinterpret_cast<uint64_t>(data)};
}

void* ProcessMemory::map(int peer, BufferName name) const {
  if (name.segment == 0) return nullptr;
  for (const Segment& s : segments_) {
    std::byte* part = s.parts[static_cast<size_t>(peer)];
    if (s.id == name.segment) return part ? part + name.offset : nullptr;
  }
  return nullptr;
}

int ProcessMemory::read(int peer, uint64_t address, void* to, size_t bytes) const {
  auto id = static_cast<pid_t>(process_ids_[static_cast<size_t>(peer)]);
  while (bytes > 0) {
    iovec local{to, bytes}, remote{reinterpret_cast<void*>(address), bytes};
    ssize_t got = process_vm_readv(id, &local, 1, &remote, 1, 0);
    if (got < 0) return errno;
    if (got == 0) return EFAULT;
    to = static_cast<std::byte*>(to) + got;
    address += static_cast<uint64_t>(got);
    bytes -= static_cast<size_t>(got);
  }
  return 0;
}

bool ProcessMemory::probe(const std::vector<uint64_t>& addresses, uint64_t expected) const {
  for (size_t peer = 0; peer < addresses.size(); ++peer) {
    uint64_t value = 0;
    if (static_cast<int>(peer) == self_) continue;
    if (read(static_cast<int>(peer), addresses[peer], &value, sizeof(value)) != 0) return false;
    if (value != expected) return false;
  }
  return true;
}

int ProcessMemory::copy_from(int peer, BufferName name, int64_t byte_offset, void* to,
                             int64_t bytes) const {
  if (bytes <= 0) return 0;
  auto size = static_cast<size_t>(bytes);
  if (void* mapped = map(peer, name)) {
    std::memcpy(to, static_cast<std::byte*>(mapped) + byte_offset, size);
    return 0;
  }
  check(name.segment == 0, "a buffer lies in shared memory that this rank does not map");
  return read(peer, name.offset + static_cast<uint64_t>(byte_offset), to, size);
}

}  // namespace adagate
