#include "data/byte_source.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

namespace adagate {
namespace {

class FileSource final : public ByteSource {
 public:
  FileSource(const std::string& path, std::function<void()> on_wait)
      : path_(path), on_wait_(std::move(on_wait)) {
    fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) fail("text file {}: cannot be opened ({})", path, std::strerror(errno));
    struct stat info = {};
    regular_ = fstat(fd_, &info) == 0 && S_ISREG(info.st_mode);
  }
  ~FileSource() override { close(fd_); }

  size_t read(char* to, size_t size) override {
    for (;;) {
      if (!regular_ && !wait()) continue;
      ssize_t done = ::read(fd_, to, size);
      if (done >= 0) return static_cast<size_t>(done);
      if (errno != EINTR) fail("text file {}: reading failed ({})", path_, std::strerror(errno));
    }
  }

 private:
  // For something to read; a signal ends it early.
  bool wait() {
    constexpr int kMilliseconds = 200;
    pollfd file{fd_, POLLIN, 0};
    bool ready = poll(&file, 1, kMilliseconds) > 0;
    if (!ready && on_wait_) on_wait_();
    return ready;
  }

  std::string path_;
  std::function<void()> on_wait_;
  int fd_ = -1;
  bool regular_ = false;
};

}  // namespace

std::unique_ptr<ByteSource> open_bytes(const std::string& path, std::function<void()> on_wait) {
  return std::make_unique<FileSource>(path, std::move(on_wait));
}

}  // namespace adagate
