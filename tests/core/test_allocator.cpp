#include <cstring>
#include <fstream>
#include <sys/resource.h>
#include <unistd.h>
#include <vector>

#include "core/base/error.h"
#include "core/device/allocator.h"
#include "tests/support/catch.h"

using namespace adagate;

namespace {

// Asked of the system, and bytes held from it, since this was made.
struct Since {
  AllocatorStats before = allocator_stats();
  int64_t system_calls() const { return allocator_stats().system_calls - before.system_calls; }
  int64_t reserved() const { return allocator_stats().bytes_reserved - before.bytes_reserved; }
  int64_t in_use() const { return allocator_stats().bytes_in_use - before.bytes_in_use; }
};

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// While it lives, the process may map `more` bytes beyond those it has.
class AddressLimit {
 public:
  explicit AddressLimit(size_t more) {
    getrlimit(RLIMIT_AS, &before_);
    size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    rlimit limit = before_;
    limit.rlim_cur = pages * static_cast<size_t>(sysconf(_SC_PAGESIZE)) + more;
    set_ = pages > 0 && setrlimit(RLIMIT_AS, &limit) == 0;
  }
  ~AddressLimit() { setrlimit(RLIMIT_AS, &before_); }
  AddressLimit(const AddressLimit&) = delete;
  AddressLimit& operator=(const AddressLimit&) = delete;
  bool set() const { return set_; }

 private:
  rlimit before_ = {};
  bool set_ = false;
};
#endif

}  // namespace

TEST_CASE("a block given back serves requests of its size and somewhat less", "[allocator]") {
  trim_allocator();
  for (size_t size : {size_t{6000}, size_t{12} << 20, size_t{100} << 20}) {
    INFO(size);
    MemoryBlock block = allocate_cpu(size);
    REQUIRE(block.capacity >= size);
    CHECK(reinterpret_cast<uintptr_t>(block.data) % 64 == 0);
    release_cpu(block);

    Since since;
    MemoryBlock same = allocate_cpu(size);
    CHECK(same.data == block.data);
    release_cpu(same);
    MemoryBlock smaller = allocate_cpu(size / 3 * 2);
    CHECK(smaller.data == block.data);
    CHECK(smaller.capacity == block.capacity);  // it goes back whole
    release_cpu(smaller);
    CHECK(since.system_calls() == 0);

    // Not for a fraction: that would hold a large block for a small tensor.
    MemoryBlock fraction = allocate_cpu(size / 4);
    CHECK(since.system_calls() == 1);
    release_cpu(fraction);
    // Nor for more than it holds.
    MemoryBlock larger = allocate_cpu(size * 5 / 4);
    CHECK(larger.capacity >= size * 5 / 4);
    CHECK(since.system_calls() == 2);
    std::memset(larger.data, 1, size * 5 / 4);
    release_cpu(larger);
    CHECK(since.in_use() == 0);
    trim_allocator();
  }
}

TEST_CASE("every size gets a block that holds it with at most an eighth to spare", "[allocator]") {
  trim_allocator();
  for (size_t size = 1; size < 900'000; size = size * 17 / 16 + 1) {
    Since since;
    MemoryBlock block = allocate_cpu(size);
    INFO(size << " bytes in " << block.capacity);
    CHECK(block.capacity >= size);
    CHECK(block.capacity < size + std::max<size_t>(size / 8, 64));
    CHECK(since.in_use() == static_cast<int64_t>(block.capacity));
    release_cpu(block);
    trim_allocator();
    CHECK(since.reserved() <= 0);
  }
}

TEST_CASE("sizes that vary from step to step need no new blocks once the largest came",
          "[allocator]") {
  trim_allocator();
  auto step = [](size_t rows) {
    std::vector<MemoryBlock> blocks;
    for (size_t width : {512, 2048, 2048, 512}) blocks.push_back(allocate_cpu(rows * width));
    for (const MemoryBlock& block : blocks) release_cpu(block);
  };
  step(256);
  Since since;
  for (size_t i = 0; i < 100; ++i) step(128 + i * 37 % 127);
  CHECK(since.system_calls() == 0);
}

// A sanitizer maps memory of its own beside every block.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("where memory ends, blocks that nobody uses are given up before an error",
          "[allocator]") {
  trim_allocator();
  constexpr size_t kMiB = size_t{1} << 20;
  std::vector<MemoryBlock> blocks;
  for (int i = 0; i < 6; ++i) blocks.push_back(allocate_cpu(64 * kMiB));
  for (const MemoryBlock& block : blocks) release_cpu(block);
  {
    AddressLimit limit(32 * kMiB);
    REQUIRE(limit.set());
    // Fits into none of the blocks, and not beside them.
    MemoryBlock large = allocate_cpu(300 * kMiB);
    CHECK(large.capacity >= 300 * kMiB);
    release_cpu(large);
    CHECK_THROWS_WITH(allocate_cpu(3000 * kMiB), Catch::Contains("out of memory: 3000.0 MiB"));
  }
  trim_allocator();
}
#endif
