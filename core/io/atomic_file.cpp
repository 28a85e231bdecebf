#include "core/io/atomic_file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <sstream>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "core/base/error.h"

namespace adagate {
namespace fs = std::filesystem;

std::string write_remedy(int error) {
  switch (error) {
    case ENOSPC:
      return "the disk is full: free some space or choose another directory";
    case EDQUOT:
      return "the disk quota is used up: free some space or choose another directory";
    case EFBIG:
      return "the file grew past the limit on file sizes (ulimit -f)";
    case EROFS:
      return "the file system is read-only: choose another directory";
    case EACCES:
    case EPERM:
      return "no permission to write there: choose another directory or change its owner";
    case ENOENT:
      return "the directory does not exist";
    case ENOTDIR:
      return "a part of the path is a file, not a directory";
    default:
      return std::strerror(error);
  }
}

void fail_to_write(const fs::path& path, int error) {
  fail("can't write {}: {}", path.string(), write_remedy(error));
}

AtomicFile::AtomicFile(fs::path path)
    : path_(std::move(path)), temporary_(path_.string() + fmt::format(".tmp-{}", getpid())) {
  fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail_to_write(path_, errno);
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) close(fd_);
  if (!committed_) unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  const char* p = static_cast<const char*>(data);
  while (bytes > 0) {
    ssize_t n = ::write(fd_, p, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_to_write(path_, errno);
    p += n;
    bytes -= static_cast<size_t>(n);
  }
}

void AtomicFile::commit() {
  if (fsync(fd_) != 0) fail_to_write(path_, errno);
  int fd = std::exchange(fd_, -1);
  if (close(fd) != 0) fail_to_write(path_, errno);
  if (rename(temporary_.c_str(), path_.c_str()) != 0) fail_to_write(path_, errno);
  committed_ = true;
  sync_directory(path_.has_parent_path() ? path_.parent_path() : fs::path("."));
}

void write_file_atomically(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

std::string read_text_file(const fs::path& path, std::string_view what) {
  std::error_code error;
  check(fs::exists(path, error), "{} {} does not exist", what, path.string());
  check(!fs::is_directory(path, error), "{} {} is a directory, a file is expected", what,
        path.string());
  std::ifstream in(path, std::ios::binary);
  int opening = errno;  // before another call sets it
  check(in.good(), "can't read {} {}: {}", what, path.string(), std::strerror(opening));
  std::ostringstream text;
  text << in.rdbuf();
  check(in.good(), "can't read {} {}", what, path.string());
  return std::move(text).str();
}

void make_directories(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error || !fs::is_directory(path)) {
    fail("can't make the directory {}: {}", path.string(),
         write_remedy(error ? error.value() : ENOTDIR));
  }
}

void sync_directory(const fs::path& path) {
  int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;  // nothing to flush on file systems that can't open directories
  fsync(fd);
  close(fd);
}

MappedFile::MappedFile(const fs::path& path) {
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  int opening = errno;
  if (fd < 0) fail("can't read {}: {}", path.string(), std::strerror(opening));
  struct stat info = {};
  bool regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  size_ = regular ? static_cast<size_t>(info.st_size) : 0;
  void* data = size_ ? mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0) : nullptr;
  int error = errno;
  close(fd);
  check(regular, "can't read {}: it is not a regular file", path.string());
  if (data == MAP_FAILED) fail("can't map {}: {}", path.string(), std::strerror(error));
  data_ = data;
}

MappedFile::~MappedFile() {
  if (data_) munmap(data_, size_);
}

}  // namespace adagate
