#include "tests/support/guarded_device.h"

#include <array>
#include <csignal>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>
#include <unordered_map>
#include <vector>

#include "core/base/error.h"
#include "core/device/backend.h"
#include "core/ops/all_kernels.h"

namespace adagate::test {
namespace {

constexpr size_t kArenaBytes = size_t{8} << 30;  // of addresses; pages exist once they are used
constexpr size_t kAlign = 256;

struct Work {
  const char* name;
  std::function<void()> run;
};

// The memory and the queue of one device.
class Arena {
 public:
  Arena() {
    void* base =
        mmap(nullptr, kArenaBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(base != MAP_FAILED, "guarded device: no addresses");
    base_ = static_cast<std::byte*>(base);
  }

  bool holds(const void* address) const {
    return address >= base_ && address < base_ + kArenaBytes;
  }

  MemoryBlock allocate(size_t bytes) {
    size_t size = std::max(kAlign, (bytes + kAlign - 1) / kAlign * kAlign);
    std::lock_guard lock(mutex_);
    auto& free = free_[size];
    std::byte* data;
    if (free.empty()) {
      check(used_ + size <= kArenaBytes, "guarded device: out of memory");
      data = base_ + used_;
      used_ += size;
    } else {
      data = free.back();
      free.pop_back();
    }
    // In order with the launches that may still use the block.
    queue_.push_back({"allocation", [=] { std::memset(data, 0xFF, size); }});
    return {data, size};
  }

  void release(MemoryBlock block) {
    std::lock_guard lock(mutex_);
    free_[block.capacity].push_back(static_cast<std::byte*>(block.data));
  }

  void push(Work work) {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
  }

  // Runs what is queued and then `last`.
  void run(const std::function<void()>& last) {
    std::vector<Work> queue;
    size_t open;
    {
      std::lock_guard lock(mutex_);
      queue.swap(queue_);
      open = used_;
    }
    Access access(base_, open);
    for (Work& work : queue) {
      running_ = work.name;
      work.run();
    }
    if (last) last();
    running_ = "none";
  }

  const char* volatile launched_ = "none";
  const char* volatile running_ = "none";

 private:
  // The arena's used part is open while this lives.
  class Access {
   public:
    Access(std::byte* base, size_t bytes) : base_(base), bytes_(bytes) {
      set(PROT_READ | PROT_WRITE);
    }
    ~Access() { set(PROT_NONE); }
    Access(const Access&) = delete;
    Access& operator=(const Access&) = delete;

   private:
    void set(int protection) {
      size_t page = 4096, bytes = (bytes_ + page - 1) / page * page;
      if (bytes > 0 && mprotect(base_, bytes, protection) != 0) std::abort();
    }
    std::byte* base_;
    size_t bytes_;
  };

  std::byte* base_ = nullptr;
  size_t used_ = 0;
  std::unordered_map<size_t, std::vector<std::byte*>> free_;
  std::vector<Work> queue_;
  std::mutex mutex_;
};

class GuardedBackend final : public Backend {
 public:
  GuardedBackend() {
    AllKernels::for_each([this]<class Args>() {
      kernels_[std::string(Args::kKernel)] = {sizeof(Args), &GuardedBackend::launch_later<Args>};
    });
  }

  int devices() const override { return kGuardedDevices; }
  DeviceFacts facts(int) override { return {.name = "guarded memory"}; }
  AllocatorStats memory(int) override { return {}; }
  MemoryBlock allocate(size_t bytes, int index) override { return arena(index).allocate(bytes); }
  void release(MemoryBlock block, int index) override { arena(index).release(block); }
  void* queue(int index) override { return &arena(index); }

  void copy(void* to, const void* from, size_t bytes, CopyKind kind, int index) override {
    Arena& on = arena(index);
    on.launched_ = "copy";
    if (kind == CopyKind::to_host) {
      on.run([=] { std::memcpy(to, from, bytes); });
    } else if (kind == CopyKind::to_device) {
      const auto* first = static_cast<const std::byte*>(from);
      on.push({"copy", [to, values = std::vector<std::byte>(first, first + bytes)] {
                 std::memcpy(to, values.data(), values.size());
               }});
    } else {
      on.push({"copy", [=] { std::memmove(to, from, bytes); }});
    }
  }

  void synchronize(int index) override { arena(index).run({}); }

  KernelFn kernel(std::string_view name, size_t args_bytes) override {
    auto found = kernels_.find(std::string(name));
    return found != kernels_.end() && found->second.bytes == args_bytes ? found->second.launch
                                                                        : nullptr;
  }

  Arena& arena(int index) {
    std::lock_guard lock(mutex_);
    auto& place = arenas_[static_cast<size_t>(index)];
    if (!place) place = std::make_unique<Arena>();
    return *place;
  }

  // The arena that an address lies in, or null. For the handler of signals: takes no lock.
  Arena* holder(const void* address) {
    for (auto& place : arenas_)
      if (place && place->holds(address)) return place.get();
    return nullptr;
  }

  void count(std::string_view name) {
    std::lock_guard lock(mutex_);
    ++launches_[std::string(name)];
  }
  std::map<std::string, int64_t> launches() {
    std::lock_guard lock(mutex_);
    return launches_;
  }

 private:
  struct Entry {
    size_t bytes;
    KernelFn launch;
  };

  template <class Args>
  static void launch_later(void* queue, const void* args);

  std::map<std::string, Entry> kernels_;
  std::array<std::unique_ptr<Arena>, kGuardedDevices> arenas_;
  std::map<std::string, int64_t> launches_;
  std::mutex mutex_;
};

GuardedBackend& backend() {
  static auto* backend = new GuardedBackend;  // as long as the process: tensors may be
  return *backend;
}

// Whether a word of arguments is an address of the host: programs and libraries, heaps, stacks and
// mappings all lie above 2^46. Numbers lie below, and so do words of small flags and types, which
// would be addresses of the sanitizers' shadows.
bool is_host_address(uint64_t word) {
  if (word < (uint64_t{1} << 46) || word >= (uint64_t{1} << 47)) return false;
  if (backend().holder(reinterpret_cast<void*>(word))) return false;
  void* page = reinterpret_cast<void*>(word & ~uint64_t{4095});
  return msync(page, 1, MS_ASYNC) == 0;  // fails where nothing is mapped
}

template <class Args>
void refuse_host_pointers(Args args) {
  if constexpr (requires { args.visit_host_arrays([](auto&, int64_t) {}); })
    args.visit_host_arrays([](auto& pointer, int64_t) { pointer = nullptr; });
#if __has_builtin(__builtin_clear_padding)
  __builtin_clear_padding(&args);
#endif
  for (size_t at = 0; at + sizeof(uint64_t) <= sizeof(Args); at += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, reinterpret_cast<const std::byte*>(&args) + at, sizeof word);
    check(!is_host_address(word),
          "kernel {}: its arguments at byte {} point to memory of the host, which may be gone "
          "when it runs",
          Args::kKernel, at);
  }
}

// What a queued launch keeps: its arguments, and copies of the host's arrays.
template <class Args>
struct Kept {
  Args args;
  std::vector<std::vector<std::byte>> arrays;

  explicit Kept(const Args& given) : args(given) {
    if constexpr (requires { args.visit_host_arrays([](auto&, int64_t) {}); }) {
      args.visit_host_arrays([&](auto& pointer, int64_t count) {
        if (!pointer) return;
        const auto* first = reinterpret_cast<const std::byte*>(pointer);
        arrays.emplace_back(first, first + static_cast<size_t>(count) * sizeof(*pointer));
        pointer =
            reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(arrays.back().data());
      });
    }
  }
};

void say(const char* text) {
  [[maybe_unused]] auto written = write(STDERR_FILENO, text, std::strlen(text));
}

void on_fault(int number, siginfo_t* info, void*) {
  Arena* arena = backend().holder(info->si_addr);
  if (!arena) {  // somebody else's fault
    std::signal(number, SIG_DFL);
    return;
  }
  say("the host touched memory of a guarded device; launched last: ");
  say(arena->launched_);
  say(", running: ");
  say(arena->running_);
  say("\n");
  _exit(kGuardedExit);
}

void watch_for_faults() {
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &action, nullptr);
}

template <class Args>
void GuardedBackend::launch_later(void* queue, const void* args) {
  watch_for_faults();  // again: Catch2 takes the signal for itself at the start of each test case
  const Args& given = *static_cast<const Args*>(args);
  refuse_host_pointers(given);
  auto* arena = static_cast<Arena*>(queue);
  arena->launched_ = Args::kKernel.data();
  backend().count(Args::kKernel);
  arena->push({Args::kKernel.data(), [kept = std::make_shared<Kept<Args>>(given)] {
                 CpuStream cpu;
                 launch(cpu, kept->args);
               }});
}

}  // namespace

Device guarded_device(int index) {
  static const bool registered = [] {
    register_backend(DeviceKind::guarded, backend());
    return true;
  }();
  check(registered && index >= 0 && index < kGuardedDevices, "guarded device {}", index);
  return {DeviceKind::guarded, index};
}

std::map<std::string, int64_t> guarded_launches() {
  return backend().launches();
}

}  // namespace adagate::test
