// Files mapped into memory, read-only, that others may cut or write again meanwhile.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <span>

namespace adagate {

struct MappedRange;

// The system answers the reading of a page that has gone (the file was cut, the disk or the network
// file system failed) with SIGBUS. A handler, which the first mapping installs, puts zeros in place
// of that page and all that follow; who reads a mapping asks check_intact() afterwards.
class MappedFile {
 public:
  // Throws Error naming the path: missing, no permission, not a regular file.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const char> bytes() const { return {static_cast<const char*>(data_), size_}; }

  // Throws Error with cause and remedy if bytes that were read so far had gone.
  void check_intact() const;
  // Whether the file has the size and the time of change that it had when it was mapped, or at the
  // last accept_change(). A microsecond; may be called by many threads at once.
  bool unchanged() const;
  // Takes the file, as it is now, for the one that was mapped.
  void accept_change() const;

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  void* data_ = nullptr;
  size_t size_ = 0;
  // Of the file when it was mapped or last accepted; nanoseconds, bytes.
  mutable std::atomic<int64_t> changed_at_{0}, known_size_{0};
  MappedRange* range_ = nullptr;
};

}  // namespace adagate
