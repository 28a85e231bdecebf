// Text files as a stream of UTF-8, whatever form they lie in.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "data/byte_source.h"

namespace adagate {

struct TextInputOptions {
  bool any_content = false;            // give the bytes as they lie, whatever they are
  std::function<void()> on_wait = {};  // called now and then while a pipe gives nothing; may throw
};

// Reads plain text, and text in gzip or zstd (also of several members), in bounded memory; UTF-16
// with a byte-order mark becomes UTF-8, and the mark of UTF-8 is left out. Text in another 8-bit
// encoding is given as it is, with a warning. All else is refused with what it is and what to do;
// a damaged or cut compressed file is an Error that names it.
class TextInput {
 public:
  // `path`: a file or a pipe. Throws Error.
  explicit TextInput(const std::string& path, TextInputOptions options = {});
  ~TextInput();
  TextInput(const TextInput&) = delete;
  TextInput& operator=(const TextInput&) = delete;

  // Appends up to about `bytes` bytes to `text`; false at the end of the text. Throws Error.
  bool read(std::string& text, size_t bytes);

 private:
  std::unique_ptr<ByteSource> source_;
};

}  // namespace adagate
