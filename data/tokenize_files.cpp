#include "data/tokenize_files.h"

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "core/base/error.h"
#include "core/base/heartbeat.h"
#include "data/text_input.h"
#include "data/token_file.h"

namespace adagate {
namespace {

// Text to be encoded on its own; a document is one piece or several in a row.
struct Piece {
  std::string_view text;
  bool ends_document;
};

struct Block {
  std::vector<Piece> pieces;
  size_t consumed = 0;  // bytes; the rest waits for more text
};

// Whole-file documents, cut wherever the tokenizer allows.
Block split_file(std::string_view text, bool last, const Tokenizer& tokenizer, size_t piece_bytes) {
  Block block;
  while (block.consumed < text.size()) {
    std::string_view rest = text.substr(block.consumed);
    size_t window = piece_bytes, cut = 0;
    for (; cut == 0 && window < rest.size(); window *= 2)
      cut = tokenizer.safe_prefix(rest.substr(0, window));
    if (cut == 0 && !last) cut = tokenizer.safe_prefix(rest);
    if (cut == 0 && !last) break;
    if (cut == 0) cut = rest.size();
    block.pieces.push_back({rest.substr(0, cut), false});
    block.consumed += cut;
  }
  return block;
}

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\v\f") == std::string_view::npos;
}

std::string_view without_line_end(std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  if (text.ends_with('\r')) text.remove_suffix(1);
  return text;
}

// Documents of one line, or of all lines up to a blank one.
Block split_lines(std::string_view text, bool last, bool by_paragraph) {
  Block block;
  auto add = [&](size_t end) {  // the document from the last one's end on
    auto document = without_line_end(text.substr(block.consumed, end - block.consumed));
    if (!document.empty()) block.pieces.push_back({document, true});
    block.consumed = end;
  };
  for (size_t line = 0; line < text.size();) {
    size_t newline = text.find('\n', line);
    if (newline == std::string_view::npos && !last) break;
    size_t end = newline == std::string_view::npos ? text.size() : newline + 1;
    if (is_blank(without_line_end(text.substr(line, end - line)))) {
      add(line);
      block.consumed = end;
    } else if (!by_paragraph || (last && end == text.size())) {
      add(end);
    }
    line = end;
  }
  return block;
}

class FileTokenizer {
 public:
  FileTokenizer(const Tokenizer& tokenizer, const std::string& output,
                const TokenizeOptions& options)
      : tokenizer_(tokenizer), options_(options), writer_(output, tokenizer, options.replace) {}

  void add_file(const std::string& path, const std::function<void()>& report);
  void finish() { writer_.finish(); }
  TokenizeProgress progress;

 private:
  void encode(const Block& block);
  void end_document();
  const Tokenizer& tokenizer_;
  const TokenizeOptions& options_;
  TokenFileWriter writer_;
  bool in_document_ = false;
};

void FileTokenizer::add_file(const std::string& path, const std::function<void()>& report) {
  TextInput in(path, {.any_content = options_.any_content, .on_wait = report});
  std::string text;
  size_t wanted = 16 * options_.piece_bytes;
  for (bool last = false; !last;) {
    last = !in.read(text, wanted);
    Block block = options_.documents == DocumentUnit::file
                      ? split_file(text, last, tokenizer_, options_.piece_bytes)
                      : split_lines(text, last, options_.documents == DocumentUnit::paragraph);
    encode(block);
    beat();
    // Twice as much each time nothing could be cut, so that looking again stays linear.
    wanted = block.consumed > 0 ? 16 * options_.piece_bytes : 2 * wanted;
    progress.bytes += static_cast<int64_t>(block.consumed);
    text.erase(0, block.consumed);
    if (report) report();
  }
  if (in_document_) end_document();
}

void FileTokenizer::encode(const Block& block) {
  std::vector<std::string_view> texts;
  for (const Piece& piece : block.pieces) texts.push_back(piece.text);
  auto ids = encode_batch(tokenizer_, texts);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!in_document_) writer_.begin_document();
    in_document_ = true;
    writer_.append(ids[i]);
    if (block.pieces[i].ends_document) end_document();
  }
  progress.tokens = writer_.tokens();
  progress.documents = writer_.documents();
}

void FileTokenizer::end_document() {
  int32_t end = tokenizer_.end_of_text();
  if (options_.end_of_text) writer_.append({&end, 1});
  progress.tokens = writer_.tokens();
  in_document_ = false;
}

// Bytes of a text file, 0 for a pipe. Throws Error when it is nothing to read text from.
int64_t input_size(const std::string& path, const std::string& output) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::file_status status = fs::status(path, error);
  check(!fs::is_directory(status), "text file {}: is a folder; name its files", path);
  check(fs::exists(status), "text file {}: cannot be read ({})", path, error.message());
  check(!fs::equivalent(path, output, error), "text file {}: is the output, too; name another one",
        path);
  check(!is_token_file(path), "text file {}: is a token file already", path);
  return fs::is_regular_file(status) ? static_cast<int64_t>(fs::file_size(path, error)) : 0;
}

}  // namespace

DocumentUnit parse_document_unit(const std::string& word) {
  if (word == "file") return DocumentUnit::file;
  if (word == "paragraph") return DocumentUnit::paragraph;
  if (word == "line") return DocumentUnit::line;
  fail("documents: '{}' is none of file, paragraph, line", word);
}

TokenizeProgress tokenize_files(const std::vector<std::string>& inputs, const Tokenizer& tokenizer,
                                const std::string& output, const TokenizeOptions& options,
                                const std::function<void(const TokenizeProgress&)>& report) {
  check(!inputs.empty(), "tokenize: no text files are named");
  check(options.piece_bytes > 0, "tokenize: piece_bytes must be positive");
  check(
      !options.end_of_text || tokenizer.end_of_text() >= 0,
      "tokenize: the tokenizer has no <|endoftext|> to end documents with; switch end_of_text off");
  int64_t total = 0;
  for (const auto& path : inputs) total += input_size(path, output);
  FileTokenizer work(tokenizer, output, options);
  work.progress.total_bytes = total;
  auto tell = [&] {
    if (report) report(work.progress);
  };
  for (const auto& path : inputs) work.add_file(path, tell);
  work.finish();
  tell();
  return work.progress;
}

}  // namespace adagate
