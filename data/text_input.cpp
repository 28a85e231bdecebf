#include "data/text_input.h"

#include <algorithm>
#include <cctype>
#include <cstring>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/io/file_kind.h"

namespace adagate {
namespace {

// Gives what it has looked at once more.
class PeekSource final : public ByteSource {
 public:
  explicit PeekSource(std::unique_ptr<ByteSource> from) : from_(std::move(from)) {}

  std::string_view peek(size_t size) {
    size_t have = 0;
    head_.resize(size);
    while (have < size) {
      size_t n = from_->read(head_.data() + have, size - have);
      if (n == 0) break;
      have += n;
    }
    head_.resize(have);
    return head_;
  }
  std::string_view peeked() const { return head_; }
  void skip(size_t size) { at_ += size; }

  size_t read(char* to, size_t size) override {
    if (at_ == head_.size()) return from_->read(to, size);
    size_t n = std::min(size, head_.size() - at_);
    std::memcpy(to, head_.data() + at_, n);
    at_ += n;
    return n;
  }

 private:
  std::unique_ptr<ByteSource> from_;
  std::string head_;
  size_t at_ = 0;
};

bool has_json_lines(std::string_view head) {
  std::string_view line = head.substr(0, head.find('\n'));
  if (line.ends_with('\r')) line.remove_suffix(1);
  std::string_view next = head.substr(std::min(head.size(), head.find('\n')));
  return line.starts_with("{\"") && line.ends_with("}") && next.starts_with("\n{\"");
}

// What is text, but perhaps not the one that was meant.
void warn_of_content(std::string_view head, const std::string& path) {
  size_t odd = first_not_utf8(head);
  if (odd != head.npos) {
    log::warn(
        "text file {}: is not UTF-8 (byte {:#04x} at {}) and is taken as it is; if it is another "
        "encoding, convert it (iconv -f ENCODING -t UTF-8)",
        path, static_cast<uint8_t>(head[odd]), odd);
  }
  std::string_view start = head.substr(std::min(head.size(), head.find_first_not_of(" \t\r\n")));
  std::string word(start.substr(0, 14));
  std::transform(word.begin(), word.end(), word.begin(), [](char c) { return std::tolower(c); });
  if (word.starts_with("<!doctype html") || word.starts_with("<html"))
    log::warn("text file {}: is an HTML page; is it a download that failed?", path);
  if (has_json_lines(head)) {
    log::warn("text file {}: is JSON lines, whose keys and quotes are taken as text, too", path);
  }
}

}  // namespace

TextInput::TextInput(const std::string& path, TextInputOptions options) {
  auto peek = std::make_unique<PeekSource>(open_bytes(path, options.on_wait));
  if (options.any_content) {
    source_ = std::move(peek);
    return;
  }
  FileKind kind = file_kind(peek->peek(kFileHead));
  std::string name = path;
  // By content, not by the name's ending: names lie.
  if (kind.form == FileForm::gzip || kind.form == FileForm::zstd) {
    auto unpack = kind.form == FileForm::gzip ? unpack_gzip : unpack_zstd;
    peek = std::make_unique<PeekSource>(unpack(std::move(peek), path));
    name += ", unpacked,";
    kind = file_kind(peek->peek(kFileHead));
  }
  bool utf16 = kind.form == FileForm::utf16_le || kind.form == FileForm::utf16_be;
  check(utf16 || kind.form == FileForm::text, "text file {}: is {}; {}", name, kind.noun,
        kind.remedy);
  if (utf16) {
    peek->skip(2);
    source_ = utf16_to_utf8(std::move(peek), path, kind.form == FileForm::utf16_be);
    return;
  }
  std::string_view head = peek->peeked();
  constexpr std::string_view kMark = "\xef\xbb\xbf";
  warn_of_content(head, path);
  // A byte order mark is no text; tokenized it would be a token that no other text begins with.
  if (head.starts_with(kMark)) peek->skip(kMark.size());
  source_ = std::move(peek);
}

TextInput::~TextInput() = default;

bool TextInput::read(std::string& text, size_t bytes) {
  size_t have = text.size();
  text.resize(have + bytes);
  size_t done = 0;
  while (done < bytes) {
    size_t n = source_->read(text.data() + have + done, bytes - done);
    if (n == 0) break;
    done += n;
  }
  text.resize(have + done);
  return done == bytes;
}

}  // namespace adagate
