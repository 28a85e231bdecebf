#include "train/console.h"

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/base/standard_output.h"
#include "train/signals.h"

namespace adagate {
namespace {

constexpr std::string_view kErase = "\r\x1b[K";
constexpr std::chrono::milliseconds kPatienceAtEnd{100};
constexpr int kBetweenLooksMs = 20;  // at the stop signal, which may come just before the wait

// Standard output once more, as a descriptor that never blocks; -1 where there is none. The flag on
// the descriptor itself would be set for everyone who shares it, the user's shell for one.
int open_unblocked() {
  struct stat info;
  bool may_block =
      isatty(STDOUT_FILENO) || (fstat(STDOUT_FILENO, &info) == 0 && S_ISFIFO(info.st_mode));
  if (!may_block) return -1;
  return open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

bool has_room(int fd, int milliseconds) {
  pollfd target{.fd = fd, .events = POLLOUT, .revents = 0};
  return poll(&target, 1, milliseconds) > 0;
}

}  // namespace

Console::Console() : terminal_(STDOUT_FILENO), output_(open_unblocked()) {
  std::fflush(stdout);
  own_ = output_ >= 0;
  if (!own_) output_ = STDOUT_FILENO;
  renews_ = terminal_.exists() &&
            renewing_lines_wanted([](const char* name) { return std::getenv(name); });
  if (renews_) log::set_before_message([this] { clear(); });
}

Console::~Console() {
  if (renews_) log::set_before_message({});
  if (own_) close(output_);
}

void Console::write(std::string_view text, bool wait) {
  using Clock = std::chrono::steady_clock;
  auto start = Clock::now();
  while (!text.empty() && output_failure() == 0) {
    // A descriptor that may block is asked first: it takes a short line when it has room.
    ssize_t n = own_ || has_room(output_, 0) ? ::write(output_, text.data(), text.size())
                                             : (errno = EAGAIN, -1);
    if (n >= 0) {
      text.remove_prefix(static_cast<size_t>(n));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) {
      note_output_failure(errno);
      return;
    }
    bool hurry = stop_signal() != 0 && Clock::now() - start >= kPatienceAtEnd;
    if (!wait || hurry) return;
    has_room(output_, kBetweenLooksMs);
  }
}

void Console::renew(const std::string& text) {
  std::lock_guard lock(mutex_);
  live_ = true;
  write(std::string(kErase) + text, false);
}

void Console::erase() {
  if (live_) write(kErase, false);
  live_ = false;
}

void Console::clear() {
  std::lock_guard lock(mutex_);
  erase();
}

void Console::keep() {
  std::lock_guard lock(mutex_);
  if (live_) write("\n", true);
  live_ = false;
}

void Console::print(const std::string& text) {
  std::lock_guard lock(mutex_);
  erase();
  write(text + "\n", true);
}

}  // namespace adagate
