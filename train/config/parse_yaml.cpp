// YAML text to ConfigNode, through yaml-cpp's events rather than its nodes: events show duplicate
// keys and aliases, and no graph is built that an alias could blow up.
#include <algorithm>
#include <cstring>
#include <sstream>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include "core/base/error.h"
#include "data/unicode.h"
#include "train/config/config_tree.h"

namespace adagate {
namespace {

using Kind = ConfigNode::Kind;

constexpr size_t kMostBytes = 256 * 1024;
constexpr size_t kDeepest = 32;
constexpr int kMostValues = 4096;

class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(const std::string& source, bool with_lines)
      : source_(source), with_lines_(with_lines) {}

  ConfigNode take() { return std::move(root_); }
  std::string origin(const YAML::Mark& mark) const {
    return with_lines_ && mark.line >= 0 ? fmt::format("{}:{}", source_, mark.line + 1) : source_;
  }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override { add({.kind = Kind::null}, mark); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    fail("{}: aliases (*name) are not supported; write the value again, or use base", origin(mark));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                const std::string& value) override {
    check_tag(tag, mark);
    add({.kind = Kind::scalar, .quoted = tag == "!", .text = value}, mark);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    check_tag(tag, mark);
    open({.kind = Kind::list}, mark);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    check_tag(tag, mark);
    open({.kind = Kind::map}, mark);
  }
  void OnMapEnd() override { close(); }

 private:
  // A container being filled; in a map, the key whose value comes next.
  struct Frame {
    ConfigNode node;
    bool is_key = false;  // stands where a key should
    bool has_key = false;
    std::string key = {};
    std::string key_origin = {};
  };

  // yaml-cpp's own: "?" of a value as it stands, "!" of one in quotes.
  void check_tag(const std::string& tag, const YAML::Mark& mark) const {
    check(tag.empty() || tag == "?" || tag == "!",
          "{}: tags (!name) are not supported; write the value alone, a text in quotes",
          origin(mark));
  }

  bool expects_key() const {
    return !frames_.empty() && frames_.back().node.kind == Kind::map && !frames_.back().has_key;
  }

  void open(ConfigNode node, const YAML::Mark& mark) {
    check(frames_.size() < kDeepest, "{}: nested more than {} levels deep", origin(mark), kDeepest);
    node.origin = origin(mark);
    frames_.push_back({.node = std::move(node), .is_key = expects_key()});
  }

  void close() {
    Frame frame = std::move(frames_.back());
    frames_.pop_back();
    // Not sooner: yaml-cpp takes an unclosed '[' at the start of a line for a key.
    check(!frame.is_key, "{}: a key must be a word, not a list or mapping", frame.node.origin);
    place(std::move(frame.node));
  }

  void add(ConfigNode node, const YAML::Mark& mark) {
    check(++values_ <= kMostValues, "{}: more than {} values", source_, kMostValues);
    node.origin = origin(mark);
    if (!expects_key()) return place(std::move(node));
    Frame& frame = frames_.back();
    check(node.kind == Kind::scalar && !node.text.empty(), "{}: a key is missing before ':'",
          node.origin);
    frame.has_key = true;
    frame.key = std::move(node.text);
    frame.key_origin = std::move(node.origin);
    for (const ConfigNode& other : frame.node.children)
      check(other.key != frame.key, "{}: duplicate key {}; it was set at {} already",
            frame.key_origin, quote(frame.key), other.origin);
  }

  void place(ConfigNode node) {
    if (frames_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& frame = frames_.back();
    if (frame.node.kind == Kind::map) {
      node.key = std::move(frame.key);
      node.origin = std::move(frame.key_origin);
      frame.has_key = false;
    }
    frame.node.children.push_back(std::move(node));
  }

  const std::string& source_;
  bool with_lines_;
  ConfigNode root_;
  std::vector<Frame> frames_;
  int values_ = 0;
};

// The remedy for what yaml-cpp says of a tab in place of spaces, "illegal map value", and of a
// variable among [] or {}, where its brace ends the value.
std::string_view syntax_hint(const std::string& text, int line) {
  size_t begin = 0;
  for (; line > 0 && begin < text.size(); --line) begin = text.find('\n', begin) + 1;
  size_t end = std::min(text.find_first_not_of(" \t", begin), text.size());
  if (text.substr(begin, end - begin).find('\t') != std::string::npos)
    return "; the line begins with a tab: indent it with spaces";
  if (text.find("${") != std::string::npos) return "; put a path with ${ in quotes";
  return "";
}

constexpr const char* kSpaces = " \t\r\n";

std::string_view trimmed(std::string_view text) {
  size_t begin = std::min(text.find_first_not_of(kSpaces), text.size());
  return text.substr(begin, text.find_last_not_of(kSpaces) + 1 - begin);
}

// In a flow collection or a quoted text, '#' behind a space begins a comment outside of quotes.
bool has_comment(std::string_view text) {
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (quote == '"' && text[i] == '\\') {
      ++i;
    } else if (quote) {
      if (text[i] == quote) quote = 0;
    } else if (text[i] == '"' || text[i] == '\'') {
      quote = text[i];
    } else if (text[i] == '#' && i > 0 && std::strchr(kSpaces, text[i - 1])) {
      return true;
    }
  }
  return false;
}

}  // namespace

void check_text(const std::string& text, const std::string& source, bool with_lines) {
  int line = 1;
  for (size_t i = 0; i < text.size();) {
    CodePoint point = decode_utf8(text, i);
    auto byte = static_cast<uint8_t>(text[i]);
    bool control = byte == 0x7f || (byte < 0x20 && !std::strchr("\n\t\r", text[i])) || byte == 0;
    if (control || !point.valid) {
      std::string place = with_lines ? fmt::format("{}:{}", source, line) : source;
      check(!control, "{}: holds the byte 0x{:02x}, which no text has; is this the right file?",
            place, byte);
      fail("{}: holds the byte 0x{:02x}, which is not UTF-8: write it in that encoding", place,
           byte);
    }
    if (byte == '\n') ++line;
    i += point.size;
  }
}

ConfigNode parse_yaml(const std::string& text, const std::string& source, bool with_lines) {
  check(text.size() <= kMostBytes, "{}: is larger than {} KiB; is this a YAML file?", source,
        kMostBytes / 1024);
  check_text(text, source, with_lines);
  TreeBuilder builder(source, with_lines);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
    ConfigNode root = builder.take();
    check(!parser.HandleNextDocument(builder), "{}: holds more than one YAML document", source);
    if (root.origin.empty()) root.origin = source;
    return root;
  } catch (const YAML::Exception& e) {
    fail("{}: YAML syntax: {}{}", builder.origin(e.mark), e.msg, syntax_hint(text, e.mark.line));
  }
}

ConfigNode parse_yaml_value(std::string_view text, const std::string& origin) {
  std::string value(trimmed(text));
  check(value.size() <= kMostBytes, "{}: is larger than {} KiB", origin, kMostBytes / 1024);
  check_text(value, origin);
  check(value.find_first_of("\r\n") == std::string::npos, "{}: the value has more than one line",
        origin);
  if (!value.empty() && std::strchr("[{\"'", value[0])) {
    check(!has_comment(value),
          "{}: # behind a space begins a comment in YAML; put the text in quotes", origin);
    return parse_yaml(value, origin, false);
  }
  bool null =
      value.empty() || value == "~" || value == "null" || value == "Null" || value == "NULL";
  if (null) return {.kind = Kind::null, .origin = origin};
  return {.kind = Kind::scalar, .text = std::move(value), .origin = origin};
}

}  // namespace adagate
