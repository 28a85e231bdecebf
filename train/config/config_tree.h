// What was written in YAML files and --set options, merged, each value with the place it comes
// from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace adagate {

// One value as written. Nothing is converted yet: that is up to the field that takes it.
struct ConfigNode {
  enum class Kind : uint8_t { null, scalar, list, map };
  Kind kind = Kind::null;
  bool quoted = false;      // a scalar in quotes is a string, never a number
  std::string key = {};     // empty in a list and at the root
  std::string text = {};    // of a scalar
  std::string origin = {};  // where it was written: "configs/x.yaml:12" or "--set a.b=1"
  std::vector<ConfigNode> children = {};

  const ConfigNode* find(std::string_view name) const;
  ConfigNode* find(std::string_view name);
};

// Parses one YAML document. Keys are unique, at most 32 levels deep, 4096 values and 256 KiB in
// all; aliases are refused. Throws Error naming `source` and the line, whatever the text.
// `with_lines`: origins are "source:line" rather than just `source`.
ConfigNode parse_yaml(const std::string& text, const std::string& source, bool with_lines = true);

// One value in one line, as behind `--set key=`: a flow collection ([1, 2], {a: b}), a text in
// quotes, or else a scalar that is all of `text` but spaces around it: neither '#' nor ':', '*' or
// '-' means anything in it. Throws Error naming `origin`.
ConfigNode parse_yaml_value(std::string_view text, const std::string& origin);

// Throws Error naming `source` and the line when `text` is no UTF-8 text.
void check_text(const std::string& text, const std::string& source, bool with_lines = false);

// Sources in the order of their weight: a later one overrides an earlier one key by key.
class ConfigTree {
 public:
  // A file; files named by its top-level key `base` (a path or a list, relative to the file) come
  // before it. Throws Error when a file is missing, unreadable, empty, no mapping, or its own base.
  void add_file(const std::string& path);
  // A document from elsewhere, called `source` in messages; it has no base.
  void add_text(const std::string& text, const std::string& source);
  // "key.path=value", as given to --set; the value is what parse_yaml_value() takes.
  void add_override(const std::string& assignment);
  // A text as it is, given to an option of its own, which `origin` names.
  void add_text_value(const std::string& path, const std::string& text, const std::string& origin);

  const ConfigNode& root() const { return root_; }
  // The files that were read, those that `base` named among them.
  const std::vector<std::filesystem::path>& files() const { return files_; }
  // The file that the value of a key stands in; empty: it is not set, or not by a file.
  std::string file_of(std::string_view path) const;

  // Puts in front of `message` where the keys that its first clause names were written, the way a
  // compiler does: "run.yaml:12, --set moe.experts=3: moe.experts is 3, but ...".
  std::string with_places(const std::string& message) const;

 private:
  void add_file(const std::string& path, std::vector<std::filesystem::path>& open);
  void add_bases(ConfigNode& document, const std::string& path,
                 std::vector<std::filesystem::path>& open);
  void add_value(const std::string& path, ConfigNode value, const std::string& origin);
  const ConfigNode* find_value(std::string_view path) const;  // null: not set, or a section

  ConfigNode root_{.kind = ConfigNode::Kind::map};
  std::vector<std::filesystem::path> files_;
};

// `text` in single quotes for a message: control characters escaped, long text cut.
std::string quote(std::string_view text);

// The candidate with the fewest typing errors from `word`, if they are few; else empty.
std::string nearest_word(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace adagate
