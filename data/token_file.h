// Token files: ids of a tokenized text, mapped into memory rather than read.
//
// Layout, little endian: a header of 128 bytes (TokenFileHeader), the ids as u16 (vocabularies up
// to 65,536) or u32, zeros up to a multiple of 8 bytes, and the first token of each document as
// u64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/io/mapped_file.h"
#include "data/tokenizer.h"

namespace adagate {

struct TokenFileHeader {
  char magic[8];  // "adagtok" and a zero
  uint32_t version;
  uint32_t header_size;
  uint32_t token_width;  // bytes: 2 or 4
  uint32_t reserved;     // zero
  uint64_t tokens;
  uint64_t documents;
  uint64_t vocabulary;
  uint64_t tokenizer_hash;
  char tokenizer_name[56];  // ends with a zero
  uint64_t payload_hash;    // XXH3 of everything behind the header
  uint64_t header_hash;     // XXH3 of the header up to here
};
static_assert(sizeof(TokenFileHeader) == 128);

// A token file's content in memory, checked on construction but not owned.
class TokenView {
 public:
  TokenView() = default;
  // Checks everything but the ids themselves. Throws Error naming `name` and the remedy: empty, not
  // a token file, another version, damaged header, truncated, documents out of order, no tokens.
  TokenView(std::span<const std::byte> bytes, std::string name);

  int64_t size() const { return static_cast<int64_t>(header_.tokens); }
  int64_t vocabulary() const { return static_cast<int64_t>(header_.vocabulary); }
  int token_width() const { return static_cast<int>(header_.token_width); }
  uint64_t tokenizer_hash() const { return header_.tokenizer_hash; }
  uint64_t payload_hash() const { return header_.payload_hash; }  // of tokens and documents
  std::string tokenizer_name() const { return header_.tokenizer_name; }
  const std::string& name() const { return name_; }
  int64_t documents() const { return static_cast<int64_t>(header_.documents); }
  // First token of a document; document == documents() gives the end of the last.
  int64_t document_start(int64_t document) const;

  // Copies tokens [first, first + to.size()). Throws Error if they are not all there.
  void read(int64_t first, std::span<int32_t> to) const;

  // Whether the bytes are those that the header was made for.
  bool matches_checksums() const;
  // Reads the whole file once: payload checksum, every id below the vocabulary. Throws Error.
  void verify() const;
  // Throws Error unless the file was written with this tokenizer.
  void check_tokenizer(const Tokenizer& tokenizer) const;

 private:
  std::span<const std::byte> bytes_;
  TokenFileHeader header_{};
  std::string name_;
  size_t documents_at_ = 0;  // byte offset
};

// A token file mapped into memory; the view lives as long as the file object.
class TokenFile {
 public:
  explicit TokenFile(const std::string& path);
  ~TokenFile();
  TokenFile(TokenFile&&) noexcept;
  TokenFile& operator=(TokenFile&&) noexcept;
  // After reading from it, check_same().
  const TokenView& view() const { return view_; }
  // Throws Error if what was read may not be what the file held when it was opened: it was cut,
  // could not be read, or holds something else now. One system call while nothing has changed.
  void check_same() const;

 private:
  std::unique_ptr<const MappedFile> mapping_;
  TokenView view_;
};

// Whether a regular file begins like a token file; its remainder may be damaged.
bool is_token_file(const std::string& path);

// Writes a token file beside its final name and renames it when complete: a crash, a full disk or
// an exception leaves no half file under that name.
class TokenFileWriter {
 public:
  // Without `replace` a file of that name stays: finish() throws unless it holds the same tokens.
  TokenFileWriter(const std::string& path, const Tokenizer& tokenizer, bool replace = true);
  ~TokenFileWriter();  // without finish(): removes what was written
  TokenFileWriter(const TokenFileWriter&) = delete;
  TokenFileWriter& operator=(const TokenFileWriter&) = delete;

  void begin_document();  // the next token starts one
  // Throws Error on an id outside the tokenizer's vocabulary or a failing disk.
  void append(std::span<const int32_t> ids);
  int64_t tokens() const { return static_cast<int64_t>(header_.tokens); }
  int64_t documents() const { return static_cast<int64_t>(document_starts_.size()); }
  // Flushes to disk and renames. Throws Error if there are no tokens.
  void finish();

 private:
  struct Hash;
  void put(const void* data, size_t size);
  void flush();
  void write_fully(const void* data, size_t size, int64_t at);
  bool publish();

  bool replace_;

  std::string path_, temporary_;
  int file_ = -1;
  int64_t written_ = 0;  // bytes in the file
  TokenFileHeader header_{};
  std::vector<uint64_t> document_starts_;
  std::vector<std::byte> buffer_;
  std::unique_ptr<Hash> hash_;
};

}  // namespace adagate
