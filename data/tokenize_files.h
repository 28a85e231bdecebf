// Plain text files to one token file.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace adagate {

// What one document is: a whole file; lines with blank lines before and after; or a line. Blank
// lines and the line end after a document are dropped in the latter two.
enum class DocumentUnit { file, paragraph, line };

// "file", "paragraph" or "line"; throws Error on another word.
DocumentUnit parse_document_unit(const std::string& word);

struct TokenizeOptions {
  DocumentUnit documents = DocumentUnit::file;
  bool end_of_text = true;       // append the tokenizer's end_of_text to every document
  size_t piece_bytes = 1 << 20;  // text encoded at once by a thread; never changes the result
  bool any_content = false;      // take files as they lie, even those that are no text
  bool replace = true;           // false: an output that exists must hold the same tokens
};

struct TokenizeProgress {
  int64_t bytes = 0;        // of text, unpacked
  int64_t total_bytes = 0;  // of the files as they lie
  int64_t tokens = 0, documents = 0;
};

// Encodes the files, of any form that TextInput reads, in order into `output` (see token_file.h),
// on all threads, in memory bounded by the longest stretch of text without white space (unit file)
// or the longest document. Every document's ids are those of encoding it whole. Empty documents are
// left out. `report` is called now and then and at the end. Throws Error on unreadable input,
// unwritable output, or no text.
TokenizeProgress tokenize_files(const std::vector<std::string>& inputs, const Tokenizer& tokenizer,
                                const std::string& output, const TokenizeOptions& options = {},
                                const std::function<void(const TokenizeProgress&)>& report = {});

}  // namespace adagate
