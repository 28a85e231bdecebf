#include "parallel/host_pages.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sys/mman.h>

#include "core/base/error.h"

namespace adagate {

std::shared_ptr<void> allocate_host_pages(size_t bytes) {
  // A 2 MB page needs 2 MB alignment: map one more and give back what sticks out.
  size_t length = round_up(std::max<size_t>(bytes, 64), bytes >= kHugePage ? kHugePage : 4096);
  size_t slack = bytes >= kHugePage ? kHugePage : 0;
  void* raw =
      mmap(nullptr, length + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  check(raw != MAP_FAILED, "cannot allocate {} bytes: {}", length, std::strerror(errno));
  auto* begin = static_cast<std::byte*>(raw);
  auto* end = begin + length + slack;
  auto* data = begin;
  if (slack) {
    data = reinterpret_cast<std::byte*>(round_up(reinterpret_cast<uintptr_t>(raw), kHugePage));
    if (data > begin) munmap(begin, static_cast<size_t>(data - begin));
    if (data + length < end) munmap(data + length, static_cast<size_t>(end - data - length));
    madvise(data, length, MADV_HUGEPAGE);
  }
  return {data, [length](void* p) { munmap(p, length); }};
}

}  // namespace adagate
