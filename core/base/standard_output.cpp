#include "core/base/standard_output.h"

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

namespace adagate {
namespace {

std::atomic<int> g_failure{0};

}  // namespace

void occupy_standard_streams() {
  for (int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(fd, F_GETFD) >= 0) continue;
    // The lowest free number is this one; in the wrong direction, so that its use is an error.
    [[maybe_unused]] int taken = open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

bool write_output(std::string_view text) {
  if (g_failure != 0) return false;
  errno = 0;
  bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  written = written && std::fflush(stdout) == 0;
  if (!written) note_output_failure(errno != 0 ? errno : EIO);
  return written;
}

void note_output_failure(int error) {
  int none = 0;
  g_failure.compare_exchange_strong(none, error);
}

int output_failure() {
  return g_failure;
}

int foreseen_output_failure() {
  int mode = fcntl(STDOUT_FILENO, F_GETFL);
  if (mode < 0 || (mode & O_ACCMODE) == O_RDONLY) return EBADF;
  pollfd stream{STDOUT_FILENO, POLLOUT, 0};
  bool broken = poll(&stream, 1, 0) == 1 && (stream.revents & POLLERR);
  return broken ? EPIPE : 0;
}

}  // namespace adagate
