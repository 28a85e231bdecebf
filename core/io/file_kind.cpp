#include "core/io/file_kind.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/base/error.h"

namespace adagate {
namespace {

using namespace std::string_view_literals;

constexpr const char* kNoText = "name a text file";
constexpr const char* kUnpack = "unpack it and name the text files in it";
constexpr const char* kExport = "export its text to a plain file";
constexpr const char* kLfsRemedy = "fetch the file itself with 'git lfs pull'";

struct Magic {
  std::string_view bytes;
  size_t at;
  const char* noun;
  const char* remedy;
};

// Short words among them count only in front of what is no text.
constexpr Magic kMagics[] = {
    {"version https://git-lfs.github.com/spec/"sv, 0, "a Git LFS pointer, not the file itself",
     kLfsRemedy},
    {"adagtok\0"sv, 0, "a token file", "name it as a token file, or the text that it was made of"},
    {"\xfd"
     "7zXZ\0"sv,
     0, "an xz file", "unpack it (xz -d)"},
    {"BZh91AY&SY"sv, 0, "a bzip2 file", "unpack it (bzip2 -d)"},
    {"\x04\x22\x4d\x18"sv, 0, "an lz4 file", "unpack it (lz4 -d)"},
    {"PK\3\4"sv, 0, "a zip archive (also .docx, .npz, PyTorch's .pt)", kUnpack},
    {"7z\xbc\xaf\x27\x1c"sv, 0, "a 7z archive", kUnpack},
    {"Rar!\x1a\x07"sv, 0, "a rar archive", kUnpack},
    {"ustar"sv, 257, "a tar archive", "unpack it (tar -xf) and name the text files in it"},
    {"\x7f"
     "ELF"sv,
     0, "a program or library (ELF)", kNoText},
    {"\x89PNG\r\n\x1a\n"sv, 0, "a PNG image", kNoText},
    {"\xff\xd8\xff"sv, 0, "a JPEG image", kNoText},
    {"GIF87a"sv, 0, "a GIF image", kNoText},
    {"GIF89a"sv, 0, "a GIF image", kNoText},
    {"%PDF-"sv, 0, "a PDF document", "take its text out (pdftotext)"},
    {"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"sv, 0, "a Microsoft Office document", kExport},
    {"PAR1"sv, 0, "a Parquet file", kExport},
    {"ARROW1\0\0"sv, 0, "an Arrow file", kExport},
    {"FEA1"sv, 0, "a Feather file", kExport},
    {"\x89HDF\r\n\x1a\n"sv, 0, "an HDF5 file", kExport},
    {"\x93NUMPY"sv, 0, "a NumPy array",
     "token ids are no text: tokenize the text that they were made of"},
    {"SQLite format 3\0"sv, 0, "an SQLite database", kExport},
    {"GGUF"sv, 0, "a GGUF model", kNoText},
};

bool matches(const Magic& magic, std::string_view head) {
  if (!head.substr(std::min(magic.at, head.size())).starts_with(magic.bytes)) return false;
  bool words = std::all_of(magic.bytes.begin(), magic.bytes.end(),
                           [](char c) { return c >= ' ' && c <= '~'; });
  bool certain = magic.at == 0 && (!words || magic.bytes.size() >= 8);
  return certain || head.find('\0') != head.npos || first_not_utf8(head) != head.npos;
}

bool is_pickle(std::string_view head) {
  return head.size() >= 2 && head[0] == '\x80' && head[1] >= 2 && head[1] <= 5;
}

bool is_zstd(std::string_view head) {
  bool skippable =
      head.size() >= 4 && (head[0] & 0xf0) == 0x50 && head.substr(1, 3) == "\x2a\x4d\x18"sv;
  return skippable || head.starts_with("\x28\xb5\x2f\xfd"sv);
}

// UTF-16 without a mark: of Latin text every other byte is zero.
const char* utf16_without_mark(std::string_view head) {
  std::array<size_t, 2> zeros{};
  for (size_t i = 0; i < head.size(); ++i) zeros[i % 2] += head[i] == 0;
  size_t pairs = head.size() / 2;
  if (pairs < 2) return nullptr;
  if (zeros[1] * 4 > pairs * 3 && zeros[0] * 20 < pairs) return "UTF-16LE";
  if (zeros[0] * 4 > pairs * 3 && zeros[1] * 20 < pairs) return "UTF-16BE";
  return nullptr;
}

FileKind encoded(const char* encoding) {
  return {FileForm::other, std::string("text in ") + encoding,
          std::string("convert it (iconv -f ") + encoding + " -t UTF-8 FILE > NEW)"};
}

bool is_binary(std::string_view head) {
  auto odd = [](char c) { return static_cast<uint8_t>(c) < 7 || (c > 13 && c < 27) || c == 127; };
  auto count = static_cast<size_t>(std::count_if(head.begin(), head.end(), odd));
  return head.find('\0') != head.npos || count * 50 > head.size();
}

}  // namespace

// "{" behind a length that can be a header's.
bool is_safetensors(std::string_view head) {
  return head.size() >= 10 && head[8] == '{' && head.substr(4, 4) == "\0\0\0\0"sv;
}

FileKind file_kind(std::string_view head) {
  if (head.starts_with("\x1f\x8b"sv)) return {FileForm::gzip, "a gzip file", "unpack it (gzip -d)"};
  if (is_zstd(head)) return {FileForm::zstd, "a zstd file", "unpack it (zstd -d)"};
  for (const Magic& magic : kMagics)
    if (matches(magic, head)) return {FileForm::other, magic.noun, magic.remedy};
  if (head.starts_with("\xff\xfe\0\0"sv)) return encoded("UTF-32LE");
  if (head.starts_with("\0\0\xfe\xff"sv)) return encoded("UTF-32BE");
  if (head.starts_with("\xff\xfe"sv)) {
    return {FileForm::utf16_le, "text in UTF-16LE", encoded("UTF-16LE").remedy};
  }
  if (head.starts_with("\xfe\xff"sv)) {
    return {FileForm::utf16_be, "text in UTF-16BE", encoded("UTF-16BE").remedy};
  }
  if (is_safetensors(head)) return {FileForm::other, "a safetensors file", kNoText};
  if (is_pickle(head)) return {FileForm::other, "a Python pickle (PyTorch's .pt or .bin)", kExport};
  if (const char* encoding = utf16_without_mark(head)) return encoded(encoding);
  if (is_binary(head)) return {FileForm::other, "binary data, not text", kNoText};
  return {};
}

void check_is_text(std::string_view head, const std::string& name) {
  FileKind kind = file_kind(head);
  check(kind.form == FileForm::text, "{}: is {}; {}", name, kind.noun, kind.remedy);
}

void check_no_lfs_pointer(std::string_view head, const std::string& name) {
  const Magic& pointer = kMagics[0];
  check(!head.starts_with(pointer.bytes), "{}: is {}; {}", name, pointer.noun, pointer.remedy);
}

size_t first_not_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    auto lead = static_cast<uint8_t>(text[at]);
    size_t length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (length == 0 || lead > 0xf4) return at;
    size_t have = std::min(length, text.size() - at);
    for (size_t i = 1; i < have; ++i)
      if ((text[at + i] & 0xc0) != 0x80) return at;
    if (have < length) return text.npos;
    at += length;
  }
  return text.npos;
}

std::string read_file_head(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return "";
  std::ifstream in(path, std::ios::binary);
  std::string head(kFileHead, '\0');
  in.read(head.data(), static_cast<std::streamsize>(head.size()));
  head.resize(static_cast<size_t>(std::max<std::streamsize>(0, in.gcount())));
  return head;
}

}  // namespace adagate
