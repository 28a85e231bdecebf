// Texts in every form that is read, and what is refused instead of being taken for text.
#include <fmt/format.h>
#include <memory>
#include <zlib.h>
#include <zstd.h>

#include "core/base/error.h"
#include "data/byte_tokenizer.h"
#include "data/text_input.h"
#include "data/token_file.h"
#include "data/tokenize_files.h"
#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"

using namespace adagate;
using namespace std::string_literals;
using Catch::Contains;

namespace {

std::string gzip(const std::string& text) {
  z_stream stream{};
  REQUIRE(deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string packed(deflateBound(&stream, text.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  REQUIRE(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

std::string zstd(const std::string& text) {
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3));
  return packed;
}

// Of text below U+10000 and one character beyond.
std::string utf16(const std::u16string& text, bool big_endian) {
  std::string bytes;
  for (char16_t unit : u"\xfeff"s + text) {
    char high = static_cast<char>(unit >> 8), low = static_cast<char>(unit & 0xff);
    bytes += big_endian ? high : low;
    bytes += big_endian ? low : high;
  }
  return bytes;
}

std::string read_all(const std::string& path, size_t piece) {
  TextInput in(path);
  std::string text;
  while (in.read(text, piece)) {
  }
  return text;
}

std::string message_of(const std::string& path) {
  try {
    read_all(path, 1000);
  } catch (const Error& e) {
    return e.what();
  }
  return "(no error)";
}

std::string long_text() {
  std::string text;
  for (int i = 0; i < 60'000; ++i)
    text += fmt::format("line {} of naïve text\n", i * 7919 % 60'013);
  return text;
}

}  // namespace

TEST_CASE("text input: gzip and zstd give their text, of one member or several") {
  TempFolder folder;
  const std::string text = long_text(), more = "and more\n";
  for (size_t piece : {size_t{7}, size_t{65'536}, size_t{10'000'000}}) {
    CAPTURE(piece);
    CHECK(read_all(folder.write("a", text), piece) == text);
    CHECK(read_all(folder.write("a.gz", gzip(text)), piece) == text);
    CHECK(read_all(folder.write("a.zst", zstd(text)), piece) == text);
    CHECK(read_all(folder.write("b.gz", gzip(text) + gzip("") + gzip(more)), piece) == text + more);
    CHECK(read_all(folder.write("b.zst", zstd(text) + zstd(more)), piece) == text + more);
  }
  CHECK(read_all(folder.write("padded.gz", gzip(more) + std::string(512, '\0')), 100) == more);
  // Whatever the file is called.
  CHECK(read_all(folder.write("named.txt", gzip(more)), 100) == more);
  CHECK(read_all(folder.write("empty.gz", gzip("")), 100).empty());
  CHECK(read_all(folder.write("empty", ""), 100).empty());
}

TEST_CASE("text input: a compressed file that is cut or damaged is an error that names it") {
  TempFolder folder;
  const std::string text = long_text();
  for (const auto& [name, packed] : {std::pair{"a.gz"s, gzip(text)}, {"a.zst"s, zstd(text)}}) {
    CAPTURE(name);
    for (size_t size : {packed.size() - 1, packed.size() / 2, size_t{20}})
      CHECK_THAT(message_of(folder.write(name, packed.substr(0, size))),
                 Contains(name + ": its ") && Contains("ends early: the file is cut"));
    std::string damaged = packed;
    for (size_t i = 0; i < 64; ++i) damaged[packed.size() / 2 + i] ^= 0x55;
    CHECK_THAT(message_of(folder.write(name, damaged)), Contains("is damaged"));
    CHECK_THAT(message_of(folder.write(name, packed + "garbage")), Contains(name + ": its "));
  }
}

TEST_CASE("text input: UTF-16 with a mark becomes UTF-8, and UTF-8 loses its mark") {
  TempFolder folder;
  const std::string text = "a naïve 日本 \U0001F600 end\n";
  const std::u16string wide = u"a naïve 日本 \U0001F600 end\n";
  for (size_t piece : {1, 3, 1000}) {
    CHECK(read_all(folder.write("le", utf16(wide, false)), piece) == text);
    CHECK(read_all(folder.write("be", utf16(wide, true)), piece) == text);
    CHECK(read_all(folder.write("u8", "\xef\xbb\xbf" + text), piece) == text);
    CHECK(read_all(folder.write("u16.gz", gzip(utf16(wide, false))), piece) == text);
  }
  std::string cut = utf16(wide, false);
  cut.pop_back();
  CHECK_THAT(message_of(folder.write("cut", cut)), Contains("ends inside a character"));
  CHECK_THAT(message_of(folder.write("half", utf16(u"a\xd83d"s, true))), Contains("half a char"));
  CHECK_THAT(message_of(folder.write("low", utf16(u"\xde00 b"s, true))), Contains("half a char"));
}

TEST_CASE("text input: what is no text is refused with what it is and what to do") {
  TempFolder folder;
  struct Case {
    std::string content, message;
  };
  const std::string wide = utf16(u"some text in it", false).substr(2);
  for (const auto& [content, message] : std::vector<Case>{
           {"\x7f"
            "ELF\2\1\1",
            "is a program or library (ELF); name a text file"},
           {"\x10\0\0\0\0\0\0\0{\"a\":{}}      "s, "is a safetensors file; name a text file"},
           {"adagtok\0\1\0\0\0"s, "is a token file; "},
           {"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n",
            "is a Git LFS pointer, not the file itself; fetch the file itself with 'git lfs pull'"},
           {"\xfd"
            "7zXZ\0\0"s,
            "is an xz file; unpack it (xz -d)"},
           {"BZh91AY&SY..", "is a bzip2 file; unpack it (bzip2 -d)"},
           {"PK\3\4", "is a zip archive (also .docx, .npz, PyTorch's .pt); unpack it"},
           {"PAR1\x15\0\x15"s, "is a Parquet file; export its text"},
           {"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "is a PDF document; take its text out (pdftotext)"},
           {"\x89PNG\r\n\x1a\n", "is a PNG image; name a text file"},
           {"\x93NUMPY\1\0v\0"s, "is a NumPy array; "},
           {"SQLite format 3\0"s, "is an SQLite database; export its text"},
           {"\x80\x02}q\0"s, "is a Python pickle"},
           {wide, "is text in UTF-16LE; convert it (iconv -f UTF-16LE -t UTF-8 FILE > NEW)"},
           {"\xff\xfe\0\0h\0\0\0"s, "is text in UTF-32LE; convert it (iconv -f UTF-32LE"},
           {"some words, then\0more"s, "is binary data, not text; name a text file"},
           {std::string(50, '\1') + std::string(500, 'x'), "is binary data, not text"},
       }) {
    CAPTURE(message);
    CHECK_THAT(message_of(folder.write("file", content)), Contains("file: " + message));
    CHECK_THAT(message_of(folder.write("file.gz", gzip(content))),
               Contains("file.gz, unpacked,: " + message));
    TextInput any(folder.write("file", content), {.any_content = true});
    std::string text;
    CHECK_FALSE(any.read(text, 1000));
    CHECK(text == content);
  }
}

TEST_CASE("text input: text that only looks like something else is text") {
  TempFolder folder;
  for (const std::string& text :
       {"PAR1 and FEA1 are stations\n"s, "%PDF- is how such files begin\n"s, "GGUF\n"s, "x"s,
        "caf\xe9 in Latin-1\n"s, "\xf0\xd2\xc9\xd7\xc5\xd4 \xcd\xc9\xd2\n"s,
        "\x1b[1mbold\x1b[0m\n"s, "tabs\tand\r\nlines\f\n"s, "<!DOCTYPE html>\n<p>\n"s,
        "{\"text\":\"a\"}\n{\"text\":\"b\"}\n"s}) {
    CAPTURE(text);
    CHECK(read_all(folder.write("file", text), 5) == text);
  }
}

TEST_CASE("tokenize: a compressed file gives the tokens of its text") {
  TempFolder folder;
  const std::string text = long_text();
  ByteTokenizer tokenizer;
  tokenize_files({folder.write("a", text)}, tokenizer, folder.path("a.tokens"));
  TokenizeProgress done =
      tokenize_files({folder.write("a.gz", gzip(text))}, tokenizer, folder.path("b.tokens"));
  CHECK(folder.read("a.tokens") == folder.read("b.tokens"));
  CHECK(done.bytes == static_cast<int64_t>(text.size()));
  CHECK_THROWS_AS(tokenize_files({folder.write("cut.gz", gzip(text).substr(0, 9000))}, tokenizer,
                                 folder.path("c.tokens")),
                  Error);
  CHECK_FALSE(std::filesystem::exists(folder.path("c.tokens")));
}
