// What the first bytes of a file say that it is, for messages and for reading it rightly.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace adagate {

// Bytes that file_kind() likes to see; fewer where the file ends before.
inline constexpr size_t kFileHead = 64 << 10;

enum class FileForm { text, utf16_le, utf16_be, gzip, zstd, other };

struct FileKind {
  FileForm form = FileForm::text;
  std::string noun = "a text file";
  std::string remedy;  // where a text was expected; empty for text
};

// `head`: the first kFileHead bytes. Text is what holds no zero bytes and hardly any control
// characters, in UTF-8 or another encoding that extends ASCII; an empty file is text.
FileKind file_kind(std::string_view head);

// Whether it begins like a safetensors file.
bool is_safetensors(std::string_view head);

// Throws Error "NAME: is NOUN; REMEDY" unless `head` begins a text in UTF-8 or the like.
void check_is_text(std::string_view head, const std::string& name);

// Throws that Error for the pointer that Git leaves in place of a file of Git LFS.
void check_no_lfs_pointer(std::string_view head, const std::string& name);

// First byte that is not UTF-8, npos if there is none; a character that the end cuts is none.
size_t first_not_utf8(std::string_view text);

// The first kFileHead bytes of a regular file; empty if there are none to be had.
std::string read_file_head(const std::string& path);

}  // namespace adagate
