#include "core/io/mapped_file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <mutex>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/error.h"

namespace adagate {

// An entry of the list of mappings. The handler walks it while others map and unmap: entries are
// never freed, only used again.
struct MappedRange {
  std::atomic<uintptr_t> begin{0}, end{0};  // begin 0: free
  std::atomic<bool> lost{false};
  MappedRange* next = nullptr;
};

namespace {

std::atomic<MappedRange*> g_ranges{nullptr};
struct sigaction g_previous = {};

MappedRange* range_at(uintptr_t address) {
  for (MappedRange* r = g_ranges; r; r = r->next)
    if (address >= r->begin && address < r->end) return r;
  return nullptr;
}

// Only system calls and lock-free variables: it may interrupt anything.
void on_bus_error(int, siginfo_t* info, void*) {
  int saved = errno;
  auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  MappedRange* range = range_at(address);
  uintptr_t page = address & ~(static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)) - 1);
  // A file that was cut or a disk that failed: pages of zeros stand in, so that the access ends,
  // and check_intact() tells of it where an exception can be thrown.
  bool replaced = range && mmap(reinterpret_cast<void*>(page), range->end - page, PROT_READ,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
  if (replaced) {
    range->lost = true;
  } else {
    sigaction(SIGBUS, &g_previous, nullptr);  // which the same access meets next
  }
  errno = saved;
}

void install_handler() {
  struct sigaction action = {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigaction(SIGBUS, &action, &g_previous);
}

std::mutex& list_mutex() {
  static std::mutex mutex;
  return mutex;
}

MappedRange* add_range(const void* data, size_t size) {
  std::lock_guard lock(list_mutex());
  if (!g_ranges) install_handler();
  MappedRange* range = g_ranges;
  while (range && range->begin != 0) range = range->next;
  if (!range) {
    range = new MappedRange;
    range->next = g_ranges;
    g_ranges = range;
  }
  range->lost = false;
  // The beginning last: only then the handler takes the entry for a mapping.
  range->end = reinterpret_cast<uintptr_t>(data) + size;
  range->begin = reinterpret_cast<uintptr_t>(data);
  return range;
}

int64_t change_time(const struct stat& info) {
  return info.st_mtim.tv_sec * int64_t{1'000'000'000} + info.st_mtim.tv_nsec;
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) fail("can't read {}: {}", path.string(), std::strerror(errno));
  struct stat info = {};
  bool regular = fstat(fd_, &info) == 0 && S_ISREG(info.st_mode);
  size_ = regular ? static_cast<size_t>(info.st_size) : 0;
  changed_at_ = change_time(info);
  known_size_ = info.st_size;
  void* data = size_ ? mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd_, 0) : nullptr;
  int error = errno;
  if (!regular || data == MAP_FAILED) close(fd_);
  check(regular, "can't read {}: it is not a regular file", path.string());
  if (data == MAP_FAILED) fail("can't map {}: {}", path.string(), std::strerror(error));
  data_ = data;
  if (data_) range_ = add_range(data_, size_);
}

MappedFile::~MappedFile() {
  if (range_) range_->begin = 0;
  if (data_) munmap(data_, size_);
  close(fd_);
}

void MappedFile::check_intact() const {
  if (!range_ || !range_->lost) return;
  struct stat info = {};
  bool known = fstat(fd_, &info) == 0;
  check(!known || static_cast<size_t>(info.st_size) >= size_,
        "{} was cut from {} to {} bytes while it was being read: put it back and start again; "
        "replace files in use by renaming (mv), not in place (cp, >)",
        path_.string(), size_, info.st_size);
  fail(
      "{} could not be read: it was written anew meanwhile, or its disk or network file system "
      "fails; see to that and start again",
      path_.string());
}

bool MappedFile::unchanged() const {
  struct stat info = {};
  return fstat(fd_, &info) == 0 && info.st_size == known_size_ && change_time(info) == changed_at_;
}

void MappedFile::accept_change() const {
  struct stat info = {};
  if (fstat(fd_, &info) != 0) return;
  changed_at_ = change_time(info);
  known_size_ = info.st_size;
}

}  // namespace adagate
