#include "data/bpe_definition.h"

#include <array>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/base/error.h"
#include "core/io/file_kind.h"
#include "data/unicode.h"

namespace adagate {
namespace {

using Json = nlohmann::json;
constexpr const char* kEndOfTextName = "<|endoftext|>";
constexpr int64_t kMaxMerges = 1 << 24;

std::string type_of(const Json& value) {
  return value.type_name();
}

Json parse_json(std::string_view text, const std::string& name) {
  try {
    return Json::parse(text.begin(), text.end());
  } catch (const Json::exception& e) {
    fail("{}: not valid JSON ({}); download the file again", name, e.what());
  }
}

// Value of `key`, or null where the key is missing.
const Json& member(const Json& object, const char* key) {
  static const Json null;
  auto it = object.find(key);
  return it == object.end() ? null : *it;
}

bool is_on(const Json& object, const char* key, bool otherwise) {
  const Json& value = member(object, key);
  return value.is_boolean() ? value.get<bool>() : otherwise;
}

int32_t token_id(const Json& value, const std::string& token, const std::string& name) {
  check(value.is_number_integer() || value.is_number_unsigned(),
        "{}: id of token '{}' is a {}, not an integer", name, token, type_of(value));
  // An unsigned number past 2^63 would turn negative in int64_t: it is compared as it is.
  bool fits = value.is_number_unsigned()
                  ? value.get<uint64_t>() < 1u << 30
                  : value.get<int64_t>() >= 0 && value.get<int64_t>() < 1 << 30;
  check(fits, "{}: id of token '{}' is {}, outside 0 ... 2^30", name, token, value.dump());
  return value.get<int32_t>();
}

void read_vocabulary(const Json& object, const std::string& name, BpeDefinition& into) {
  check(object.is_object(), "{}: the vocabulary is a JSON {}, not an object of token: id", name,
        type_of(object));
  check(!object.empty(), "{}: the vocabulary is empty", name);
  into.vocabulary.reserve(object.size());
  for (const auto& [token, id] : object.items())
    into.vocabulary.emplace(token, token_id(id, token, name));
}

void read_json_merges(const Json& merges, const std::string& name, BpeDefinition& into) {
  check(merges.is_array(), "{}: model.merges is a JSON {}, not an array", name, type_of(merges));
  into.merges.reserve(merges.size());
  for (const Json& merge : merges) {
    size_t rank = into.merges.size();
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      into.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    check(merge.is_string(), "{}: merge {} is neither \"a b\" nor [\"a\", \"b\"]", name, rank);
    const auto& pair = merge.get_ref<const std::string&>();
    size_t space = pair.find(' ');
    check(space != std::string::npos && pair.find(' ', space + 1) == std::string::npos,
          "{}: merge {} ('{}') is not two tokens with one space between", name, rank, pair);
    into.merges.emplace_back(pair.substr(0, space), pair.substr(space + 1));
  }
}

void read_added_tokens(const Json& tokens, const std::string& name, BpeDefinition& into) {
  if (tokens.is_null()) return;
  check(tokens.is_array(), "{}: added_tokens is a JSON {}, not an array", name, type_of(tokens));
  for (const Json& token : tokens) {
    check(token.is_object() && member(token, "content").is_string(),
          "{}: an entry of added_tokens has no text 'content'", name);
    auto content = token["content"].get<std::string>();
    check(!content.empty(), "{}: an added token is empty", name);
    for (const char* key : {"lstrip", "rstrip", "single_word"})
      check(!is_on(token, key, false), "{}: added token '{}' sets {}, which is not supported", name,
            content, key);
    into.specials.push_back({content, token_id(member(token, "id"), content, name)});
  }
}

bool blank(const Json& value) {
  return value.is_null() || value == Json("");
}

// Refuses whatever would make ids differ from plain GPT-2 byte-level BPE.
void check_supported(const Json& root, const Json& model, const std::string& name) {
  constexpr const char* kRemedy = "use a GPT-2 style byte-level BPE tokenizer";
  const Json& type = member(model, "type");
  check(type.is_null() || type == Json("BPE"), "{}: the model is {}, not BPE; {}", name,
        type.dump(), kRemedy);
  check(member(root, "normalizer").is_null(), "{}: has a normalizer, which is not supported; {}",
        name, kRemedy);
  const Json& pre = member(root, "pre_tokenizer");
  check(pre.is_object() && member(pre, "type") == Json("ByteLevel"),
        "{}: the pre-tokenizer is not ByteLevel; {}", name, kRemedy);
  check(!is_on(pre, "add_prefix_space", true) && is_on(pre, "use_regex", true),
        "{}: the pre-tokenizer must have add_prefix_space false and use_regex true; {}", name,
        kRemedy);
  const Json& dropout = member(model, "dropout");
  check(dropout.is_null() || dropout == Json(0.0), "{}: BPE dropout is not supported", name);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    check(blank(member(model, key)), "{}: model.{} is not supported; {}", name, key, kRemedy);
  for (const char* key : {"byte_fallback", "ignore_merges", "fuse_unk"})
    check(!is_on(model, key, false), "{}: model.{} is not supported; {}", name, key, kRemedy);
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  int error = errno;
  check(in.good(), "tokenizer file {}: cannot be opened ({})", path.string(), std::strerror(error));
  std::ostringstream text;
  text << in.rdbuf();
  check(!in.bad() && !text.str().empty(), "tokenizer file {}: is empty or cannot be read",
        path.string());
  std::string content = std::move(text).str();
  check_is_text(std::string_view(content).substr(0, kFileHead), "tokenizer file " + path.string());
  return content;
}

void add_end_of_text(BpeDefinition& definition) {
  auto it = definition.vocabulary.find(kEndOfTextName);
  if (it != definition.vocabulary.end()) definition.specials.push_back({it->first, it->second});
}

void append_utf8(std::string& to, uint32_t code) {  // below U+0800
  if (code < 0x80) {
    to += static_cast<char>(code);
  } else {
    to += static_cast<char>(0xC0 | code >> 6);
    to += static_cast<char>(0x80 | (code & 0x3F));
  }
}

// GPT-2 writes bytes that are no printable characters as the code points from U+0100 on, in the
// order of the bytes, so that vocabularies are files of plain text (its encoder.py,
// bytes_to_unicode).
struct ByteAlphabet {
  std::array<std::string, 256> symbol;
  std::array<int16_t, 0x200> byte;  // of a code point, -1: not of the alphabet

  ByteAlphabet() {
    byte.fill(-1);
    uint32_t next = 0x100;
    for (uint32_t b = 0; b < 256; ++b) {
      bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      uint32_t code = printable ? b : next++;
      append_utf8(symbol[b], code);
      byte[code] = static_cast<int16_t>(b);
    }
  }
};

const ByteAlphabet& alphabet() {
  static const ByteAlphabet instance;
  return instance;
}

}  // namespace

const std::string& byte_symbol(uint8_t byte) {
  return alphabet().symbol[byte];
}

bool bytes_of_symbols(std::string_view symbols, std::string& bytes) {
  const auto& table = alphabet().byte;
  bytes.clear();
  for (size_t at = 0; at < symbols.size();) {
    CodePoint c = decode_utf8(symbols, at);
    if (!c.valid || c.value >= table.size() || table[c.value] < 0) return false;
    bytes += static_cast<char>(table[c.value]);
    at += c.size;
  }
  return true;
}

BpeDefinition parse_tokenizer_json(std::string_view text, const std::string& name) {
  Json root = parse_json(text, name);
  check(root.is_object(), "{}: not a tokenizer: JSON {} instead of an object", name, type_of(root));
  const Json& model = member(root, "model");
  check(model.is_object(), "{}: not a Hugging Face tokenizer.json: there is no 'model'", name);
  check_supported(root, model, name);
  BpeDefinition definition;
  read_vocabulary(member(model, "vocab"), name + ": model.vocab", definition);
  read_json_merges(member(model, "merges"), name, definition);
  read_added_tokens(member(root, "added_tokens"), name, definition);
  const Json& unknown = member(model, "unk_token");
  if (unknown.is_string()) definition.unknown = unknown.get<std::string>();
  // Files that name no added tokens still have GPT-2's in their vocabulary.
  if (definition.specials.empty()) add_end_of_text(definition);
  return definition;
}

void parse_vocabulary_json(std::string_view text, const std::string& name, BpeDefinition& into) {
  read_vocabulary(parse_json(text, name), name, into);
  add_end_of_text(into);
}

void parse_merges(std::string_view text, const std::string& name, BpeDefinition& into) {
  int64_t number = 0;
  while (!text.empty()) {
    size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    // Only this comment: a merge may begin with "#".
    if (line.starts_with("#version") || line.empty()) continue;
    size_t space = line.find(' ');
    check(space != std::string_view::npos && space > 0 && space + 1 < line.size() &&
              line.find(' ', space + 1) == std::string_view::npos,
          "{}: line {}: '{}' is not two tokens with one space between", name, number, line);
    check(number < kMaxMerges, "{}: more than {} merges", name, kMaxMerges);
    into.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
}

BpeDefinition load_bpe(const std::string& path) {
  namespace fs = std::filesystem;
  fs::path folder(path);
  if (!fs::is_directory(folder)) return parse_tokenizer_json(read_file(folder), path);
  if (fs::exists(folder / "tokenizer.json")) return load_bpe((folder / "tokenizer.json").string());
  constexpr std::array<const char*, 2> kPairs[] = {{"encoder.json", "vocab.bpe"},
                                                   {"vocab.json", "merges.txt"}};
  for (const auto& [vocabulary, merges] : kPairs) {
    bool has_vocabulary = fs::exists(folder / vocabulary);
    bool has_merges = fs::exists(folder / merges);
    if (!has_vocabulary && !has_merges) continue;
    check(has_vocabulary && has_merges, "tokenizer folder {}: {} is missing beside {}", path,
          has_merges ? vocabulary : merges, has_merges ? merges : vocabulary);
    BpeDefinition definition;
    std::string file = (folder / vocabulary).string();
    parse_vocabulary_json(read_file(file), file, definition);
    file = (folder / merges).string();
    parse_merges(read_file(file), file, definition);
    return definition;
  }
  fail(
      "tokenizer folder {}: has neither tokenizer.json, nor encoder.json + vocab.bpe, nor "
      "vocab.json + merges.txt",
      path);
}

}  // namespace adagate
