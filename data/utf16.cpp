#include <algorithm>
#include <cstdint>
#include <cstring>

#include "data/byte_source.h"

namespace adagate {
namespace {

constexpr size_t kMostReady = 256 << 10;  // bytes converted ahead

void append_utf8(std::string& to, uint32_t code) {
  auto put = [&](uint32_t byte) { to += static_cast<char>(byte); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xc0 | code >> 6);
  } else {
    if (code < 0x10000) {
      put(0xe0 | code >> 12);
    } else {
      put(0xf0 | code >> 18);
      put(0x80 | (code >> 12 & 0x3f));
    }
    put(0x80 | (code >> 6 & 0x3f));
  }
  put(0x80 | (code & 0x3f));
}

class Utf16Source final : public BufferedSource {
 public:
  Utf16Source(std::unique_ptr<ByteSource> from, const std::string& name, bool big_endian)
      : BufferedSource(std::move(from), name), big_endian_(big_endian) {}

  size_t read(char* to, size_t size) override {
    while (given_ == ready_.size()) {
      ready_.clear();
      given_ = 0;
      if (!convert()) return 0;
    }
    size_t n = std::min(size, ready_.size() - given_);
    std::memcpy(to, ready_.data() + given_, n);
    given_ += n;
    return n;
  }

 private:
  // Some characters to ready_; false at the end.
  bool convert() {
    uint32_t unit = 0;
    while (ready_.size() < kMostReady && next(unit)) {
      if (unit >= 0xdc00 && unit < 0xe000) fail_damaged("UTF-16", "has half a character");
      if (unit >= 0xd800 && unit < 0xdc00) {
        uint32_t low = 0;
        if (!next(low) || low < 0xdc00 || low >= 0xe000) {
          fail_damaged("UTF-16", "has half a character");
        }
        unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
      }
      append_utf8(ready_, unit);
    }
    return !ready_.empty();
  }
  bool next(uint32_t& unit) {
    uint8_t bytes[2];
    for (uint8_t& byte : bytes) {
      if (!refill()) {
        if (&byte != bytes) fail_damaged("UTF-16", "ends inside a character: the file is cut");
        return false;
      }
      byte = static_cast<uint8_t>(buffer_[at_++]);
    }
    unit = big_endian_ ? uint32_t{bytes[0]} << 8 | bytes[1] : uint32_t{bytes[1]} << 8 | bytes[0];
    return true;
  }

  bool big_endian_;
  std::string ready_;
  size_t given_ = 0;
};

}  // namespace

std::unique_ptr<ByteSource> utf16_to_utf8(std::unique_ptr<ByteSource> from, const std::string& name,
                                          bool big_endian) {
  return std::make_unique<Utf16Source>(std::move(from), name, big_endian);
}

}  // namespace adagate
