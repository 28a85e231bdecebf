// Files that appear whole or not at all.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace adagate {

// Writes to a new file `<path>.tmp-<pid>`, or `<path>.tmp-<pid>-<n>` where that is taken, and
// renames it to `path` in commit(); until then, or if an error is thrown, `path` stays as it was
// and the temporary is removed.
class AtomicFile {
 public:
  // Throws Error naming path and cause (missing directory, read-only, no permission).
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);  // throws Error, e.g. when the disk is full
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();  // fsync, rename, fsync of the directory

 private:
  std::filesystem::path path_;
  std::string temporary_;
  int fd_ = -1;
  bool committed_ = false;
};

// Makes a new file with the name of a temporary of `path`, which goes to `name`; as open(2): -1 and
// errno on an error.
int open_temporary(const std::filesystem::path& path, std::string& name, unsigned mode);

// Name of the file that a temporary of this name was to become; nothing for names of other files.
std::optional<std::string> final_name(const std::string& name);

void write_file_atomically(const std::filesystem::path& path, std::string_view text);

// Whole file as text. Throws Error naming the path; `what` says what it is, e.g. "tokenizer".
std::string read_text_file(const std::filesystem::path& path, std::string_view what);

// Makes a directory and its parents; returns those that were not there, the uppermost first. Throws
// Error naming path and cause, and leaves none of them then.
std::vector<std::filesystem::path> make_directories(const std::filesystem::path& path);

// Flushes a directory's entries to disk.
void sync_directory(const std::filesystem::path& path);

// Throws Error: "can't write PATH: " and the remedy for this errno.
[[noreturn]] void fail_to_write(const std::filesystem::path& path, int error);
// A remedy for errno in a write: "the disk is full: free some space", "read-only file system: ...".
std::string write_remedy(int error);

}  // namespace adagate
