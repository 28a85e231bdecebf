// Streams of bytes that read from one another: a file, what unpacks it, what converts that.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/base/error.h"

namespace adagate {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Up to `size` bytes; 0 at the end. Throws Error naming the file.
  virtual size_t read(char* to, size_t size) = 0;
};

// A file or a pipe. `on_wait`, if given, is called now and then while a pipe gives nothing.
std::unique_ptr<ByteSource> open_bytes(const std::string& path, std::function<void()> on_wait);

// All throw Error naming `name` on data that are damaged or cut.
std::unique_ptr<ByteSource> unpack_gzip(std::unique_ptr<ByteSource> from, const std::string& name);
std::unique_ptr<ByteSource> unpack_zstd(std::unique_ptr<ByteSource> from, const std::string& name);
// From behind the byte-order mark on.
std::unique_ptr<ByteSource> utf16_to_utf8(std::unique_ptr<ByteSource> from, const std::string& name,
                                          bool big_endian);

// What reads another source through a buffer.
class BufferedSource : public ByteSource {
 public:
  BufferedSource(std::unique_ptr<ByteSource> from, std::string name)
      : from_(std::move(from)), name_(std::move(name)), buffer_(size_t{256} << 10) {}

 protected:
  // False when the buffer is empty and there is no more.
  bool refill() {
    if (at_ < end_) return true;
    at_ = 0;
    end_ = from_->read(buffer_.data(), buffer_.size());
    return end_ > 0;
  }
  [[noreturn]] void fail_damaged(const char* what, const std::string& how) const {
    fail("text file {}: its {} data {}; make or fetch the file again", name_, what, how);
  }

  std::unique_ptr<ByteSource> from_;
  std::string name_;
  std::vector<char> buffer_;
  size_t at_ = 0, end_ = 0;
};

}  // namespace adagate
