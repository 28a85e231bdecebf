// gzip and zstd streams of one member or several.
#include <algorithm>
#include <zlib.h>
#include <zstd.h>

#include "data/byte_source.h"

namespace adagate {
namespace {

class GzipSource final : public BufferedSource {
 public:
  GzipSource(std::unique_ptr<ByteSource> from, const std::string& name)
      : BufferedSource(std::move(from), name) {
    constexpr int kGzipOnly = 16 + MAX_WBITS;
    check(inflateInit2(&stream_, kGzipOnly) == Z_OK, "text file {}: zlib could not start", name);
  }
  ~GzipSource() override { inflateEnd(&stream_); }

  size_t read(char* to, size_t size) override {
    size = std::min<size_t>(size, 1 << 30);
    stream_.next_out = reinterpret_cast<Bytef*>(to);
    stream_.avail_out = static_cast<uInt>(size);
    while (stream_.avail_out == size) {
      if (!refill()) {
        if (inside_) fail_damaged("gzip", "ends early: the file is cut");
        return 0;
      }
      if (!inside_ && !begin_member()) return 0;
      stream_.next_in = reinterpret_cast<Bytef*>(buffer_.data() + at_);
      stream_.avail_in = static_cast<uInt>(end_ - at_);
      int status = inflate(&stream_, Z_NO_FLUSH);
      at_ = end_ - stream_.avail_in;
      if (status == Z_STREAM_END) {
        inside_ = false;
      } else if (status != Z_OK && status != Z_BUF_ERROR) {
        fail_damaged("gzip", "is damaged");
      }
    }
    return size - stream_.avail_out;
  }

 private:
  // Zeros after the last member are padding, as gzip itself has it (of tapes).
  bool begin_member() {
    while (refill() && members_ > 0 && buffer_[at_] == 0) ++at_;
    if (!refill()) return false;
    inside_ = true;
    ++members_;
    return inflateReset(&stream_) == Z_OK;
  }

  z_stream stream_{};
  bool inside_ = false;
  int64_t members_ = 0;
};

class ZstdSource final : public BufferedSource {
 public:
  ZstdSource(std::unique_ptr<ByteSource> from, const std::string& name)
      : BufferedSource(std::move(from), name), stream_(ZSTD_createDStream(), ZSTD_freeDStream) {
    check(stream_ != nullptr, "text file {}: zstd could not start", name);
  }

  size_t read(char* to, size_t size) override {
    ZSTD_outBuffer out{to, size, 0};
    while (out.pos == 0) {
      bool more = refill();
      if (!more && expected_ == 0) return 0;  // asked again, it would expect another frame
      ZSTD_inBuffer in{buffer_.data() + at_, end_ - at_, 0};
      expected_ = ZSTD_decompressStream(stream_.get(), &out, &in);
      if (ZSTD_isError(expected_)) {
        fail_damaged("zstd", fmt::format("is damaged ({})", ZSTD_getErrorName(expected_)));
      }
      at_ += in.pos;
      if (!more && out.pos == 0 && expected_ != 0) {
        fail_damaged("zstd", "ends early: the file is cut");
      }
    }
    return out.pos;
  }

 private:
  std::unique_ptr<ZSTD_DStream, decltype(&ZSTD_freeDStream)> stream_;
  size_t expected_ = 0;  // 0: between frames
};

}  // namespace

std::unique_ptr<ByteSource> unpack_gzip(std::unique_ptr<ByteSource> from, const std::string& name) {
  return std::make_unique<GzipSource>(std::move(from), name);
}

std::unique_ptr<ByteSource> unpack_zstd(std::unique_ptr<ByteSource> from, const std::string& name) {
  return std::make_unique<ZstdSource>(std::move(from), name);
}

}  // namespace adagate
