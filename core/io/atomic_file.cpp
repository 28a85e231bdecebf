#include "core/io/atomic_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <sstream>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "core/base/error.h"
#include "core/base/heartbeat.h"
#include "core/io/file_kind.h"

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

int open_temporary(const fs::path& path, std::string& name, unsigned mode) {
  constexpr int kMostNames = 1000;
  const std::string first = path.string() + fmt::format(".tmp-{}", getpid());
  int fd = -1;
  // A name that is taken is that of someone else's file, or of a killed process with this id.
  for (int n = 1; fd < 0 && n <= kMostNames; ++n) {
    name = n == 1 ? first : fmt::format("{}-{}", first, n);
    fd = open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0 && errno != EEXIST) break;
  }
  return fd;
}

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)) {
  fd_ = open_temporary(path_, temporary_, 0644);
  if (fd_ < 0) fail_to_write(path_, errno);
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) close(fd_);
  if (!committed_) unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  const char* p = static_cast<const char*>(data);
  while (bytes > 0) {
    constexpr size_t kPiece = 64 << 20;  // a slow disk takes seconds for it, not minutes
    ssize_t n = ::write(fd_, p, std::min(bytes, kPiece));
    int error = errno;
    beat();
    if (n < 0 && error == EINTR) continue;
    if (n < 0) fail_to_write(path_, error);
    p += n;
    bytes -= static_cast<size_t>(n);
  }
}

void AtomicFile::commit() {
  // Bytes before the name: after a power failure the name must not stand for a file without them.
  if (fsync(fd_) != 0) fail_to_write(path_, errno);
  int fd = std::exchange(fd_, -1);
  // Network file systems tell of a full disk only now.
  if (close(fd) != 0) fail_to_write(path_, errno);
  if (rename(temporary_.c_str(), path_.c_str()) != 0) fail_to_write(path_, errno);
  committed_ = true;
  // And the name itself lies in the directory.
  sync_directory(path_.has_parent_path() ? path_.parent_path() : fs::path("."));
}

std::optional<std::string> final_name(const std::string& name) {
  constexpr std::string_view kMark = ".tmp-";
  size_t mark = name.rfind(kMark);
  if (mark == std::string::npos || mark == 0) return std::nullopt;
  std::string_view rest = std::string_view(name).substr(mark + kMark.size());
  size_t dash = std::min(rest.find('-'), rest.size());
  auto is_number = [](std::string_view text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
  };
  bool own =
      is_number(rest.substr(0, dash)) && (dash == rest.size() || is_number(rest.substr(dash + 1)));
  return own ? std::optional(name.substr(0, mark)) : std::nullopt;
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
  std::string content = std::move(text).str();
  check_no_lfs_pointer(content, fmt::format("{} {}", what, path.string()));
  return content;
}

std::vector<fs::path> make_directories(const fs::path& path) {
  std::error_code ignored;
  std::vector<fs::path> missing, made;
  for (fs::path p = path; !p.empty() && !fs::exists(p, ignored); p = p.parent_path())
    missing.push_back(p);
  int error = 0;
  for (auto p = missing.rbegin(); p != missing.rend() && error == 0; ++p) {
    if (mkdir(p->c_str(), 0777) == 0) {
      made.push_back(*p);
    } else if (errno != EEXIST) {  // another process may have made it meanwhile
      error = errno;
    }
  }
  if (error == 0 && !fs::is_directory(path, ignored)) error = ENOTDIR;
  if (error == 0) return made;
  // Only what was made here, and only while it is empty.
  for (auto p = made.rbegin(); p != made.rend(); ++p) rmdir(p->c_str());
  fail("can't make the directory {}: {}", path.string(), write_remedy(error));
}

void sync_directory(const fs::path& path) {
  int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;  // nothing to flush on file systems that can't open directories
  fsync(fd);
  close(fd);
}

}  // namespace adagate
