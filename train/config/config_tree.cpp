#include "train/config/config_tree.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fmt/ranges.h>
#include <memory>
#include <numeric>
#include <utility>

#include "core/base/error.h"
#include "core/io/file_kind.h"
#include "core/io/path_text.h"

namespace adagate {
namespace {

namespace fs = std::filesystem;
using Kind = ConfigNode::Kind;

constexpr size_t kMostBytes = 256 * 1024;
constexpr int kMostFiles = 64;
constexpr const char* kAssignmentForm = "expected key.path=value, e.g. train.batch=16";

// Values of `over` take the place of those of `base`; mappings merge.
void merge(ConfigNode& base, ConfigNode&& over) {
  if (base.kind == Kind::map && over.kind == Kind::map) {
    for (ConfigNode& child : over.children) {
      if (ConfigNode* old = base.find(child.key))
        merge(*old, std::move(child));
      else
        base.children.push_back(std::move(child));
    }
  } else if (base.kind != Kind::map || over.kind != Kind::null) {
    // (A section without keys leaves the section as it is.)
    base = std::move(over);
  }
}

std::string read_text(const std::string& path) {
  std::error_code ignored;
  check(!fs::is_directory(path, ignored), "{}: is a directory, not a YAML file", path);
  std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) {
    check(errno != ENOENT, "{}: no such file", path);
    fail("{}: cannot be read: {}", path, std::strerror(errno));
  }
  std::string text(kMostBytes + 1, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  check(!std::ferror(file.get()), "{}: cannot be read: {}", path, std::strerror(errno));
  return text;  // one byte too long is refused by parse_yaml
}

void check_root(const ConfigNode& document, const std::string& source) {
  check(document.kind != Kind::null, "{}: is empty; expected keys such as `train:`", source);
  check(document.kind == Kind::map, "{}: expected a mapping of keys (`key: value` lines), got {}",
        document.origin, document.kind == Kind::list ? "a list" : quote(document.text));
}

// Letters to insert, delete, replace or swap with their neighbour to get from a to b.
size_t edit_distance(std::string_view a, std::string_view b) {
  // rows[i % 3][j]: distance of the first i letters of a and the first j of b.
  std::array<std::vector<size_t>, 3> rows;
  for (auto& row : rows) row.resize(b.size() + 1);
  std::iota(rows[0].begin(), rows[0].end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    auto &row = rows[i % 3], &last = rows[(i + 2) % 3], &before_last = rows[(i + 1) % 3];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j - 1] + (a[i - 1] != b[j - 1]), last[j] + 1, row[j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
  }
  return rows[a.size() % 3][b.size()];
}

}  // namespace

const ConfigNode* ConfigNode::find(std::string_view name) const {
  auto at = std::find_if(children.begin(), children.end(),
                         [&](const ConfigNode& child) { return child.key == name; });
  return at == children.end() ? nullptr : &*at;
}

ConfigNode* ConfigNode::find(std::string_view name) {
  return const_cast<ConfigNode*>(std::as_const(*this).find(name));
}

void ConfigTree::add_file(const std::string& path) {
  std::vector<fs::path> open;
  add_file(path, open);
}

void ConfigTree::add_file(const std::string& path, std::vector<fs::path>& open) {
  check(!path.empty(), "the name of a configuration file is empty");
  files_.emplace_back(path);
  check(files_.size() <= kMostFiles, "{}: more than {} configuration files by way of base", path,
        kMostFiles);
  std::string text = read_text(path);
  check_is_text(text, path);
  ConfigNode document = parse_yaml(text, path);
  check_root(document, path);
  std::error_code ignored;
  fs::path identity = fs::weakly_canonical(path, ignored);
  if (auto loop = std::find(open.begin(), open.end(), identity); loop != open.end()) {
    std::string chain;
    for (; loop != open.end(); ++loop) chain += loop->filename().string() + " -> ";
    fail("{}: is its own base: {}{}", path, chain, identity.filename().string());
  }
  open.push_back(identity);
  add_bases(document, path, open);
  open.pop_back();
  merge(root_, std::move(document));
}

void ConfigTree::add_bases(ConfigNode& document, const std::string& path,
                           std::vector<fs::path>& open) {
  ConfigNode* base = document.find("base");
  if (!base) return;
  std::vector<ConfigNode> names;
  if (base->kind == Kind::list)
    names = base->children;
  else
    names.push_back(*base);
  for (const ConfigNode& name : names) {
    check(name.kind == Kind::scalar && !name.text.empty(),
          "{}: base: expected the path of a YAML file or a list of them", name.origin);
    std::string written = named(name.origin + ": base", [&] { return expand_path(name.text); });
    fs::path file = (fs::path(path).parent_path() / written).lexically_normal();
    std::error_code ignored;
    check(fs::exists(file, ignored), "{}: base: no such file: {}", name.origin, file.string());
    add_file(file.string(), open);
  }
  std::erase_if(document.children, [](const ConfigNode& child) { return child.key == "base"; });
}

void ConfigTree::add_text(const std::string& text, const std::string& source) {
  ConfigNode document = parse_yaml(text, source);
  check_root(document, source);
  merge(root_, std::move(document));
}

void ConfigTree::add_override(const std::string& assignment) {
  size_t equals = assignment.find('=');
  check(equals != std::string::npos, "--set {}: {}", quote(assignment), kAssignmentForm);
  std::string path = assignment.substr(0, equals);
  // Unprintable text would garble the message it is the origin of.
  std::string shown = quote(assignment);
  std::string origin = "--set " + shown.substr(1, shown.size() - 2);
  ConfigNode value = parse_yaml_value(std::string_view(assignment).substr(equals + 1), origin);
  add_value(path, std::move(value), origin);
}

void ConfigTree::add_text_value(const std::string& path, const std::string& text,
                                const std::string& origin) {
  check_text(text, origin);
  add_value(path, {.kind = Kind::scalar, .quoted = true, .text = text}, origin);
}

void ConfigTree::add_value(const std::string& path, ConfigNode value, const std::string& origin) {
  std::vector<std::string> keys{""};
  for (char c : path) {
    if (c == '.')
      keys.emplace_back();
    else
      keys.back() += c;
  }
  check(keys.size() <= 32, "{}: the key has more than 32 parts", origin);
  for (size_t i = keys.size(); i-- > 0;) {
    check(!keys[i].empty(), "{}: a part of the key is empty; {}", origin, kAssignmentForm);
    value.key = keys[i];
    value.origin = origin;
    ConfigNode outer{.kind = Kind::map, .origin = origin};
    outer.children.push_back(std::move(value));
    value = std::move(outer);
  }
  merge(root_, std::move(value));
}

const ConfigNode* ConfigTree::find_value(std::string_view path) const {
  const ConfigNode* node = &root_;
  for (size_t dot = 0; node && dot != std::string_view::npos;) {
    dot = path.find('.');
    node = node->find(path.substr(0, dot));
    if (dot != std::string_view::npos) path.remove_prefix(dot + 1);
  }
  return node && node->kind != Kind::map ? node : nullptr;
}

std::string ConfigTree::file_of(std::string_view path) const {
  const ConfigNode* node = find_value(path);
  // "file:line"; what an option has set begins with its name.
  if (!node || node->origin.starts_with("--")) return "";
  return node->origin.substr(0, node->origin.rfind(':'));
}

std::string ConfigTree::with_places(const std::string& message) const {
  std::vector<std::string> places;
  std::string_view clause = std::string_view(message).substr(0, message.find(": "));
  for (size_t begin = 0, end = 0; begin < clause.size(); begin = end + 1) {
    end = std::min(clause.find_first_of(" ,;", begin), clause.size());
    std::string_view word = clause.substr(begin, end - begin);
    // Keys at the top are words of English, too: they count as the first word only.
    if (begin > 0 && word.find('.') == std::string_view::npos) continue;
    const ConfigNode* node = find_value(word);
    if (node && std::find(places.begin(), places.end(), node->origin) == places.end())
      places.push_back(node->origin);
  }
  if (places.empty()) return message;
  // "--set data.train=x: x is empty" needs no second data.train.
  bool named_twice = places.size() == 1 && places[0].starts_with("--") && find_value(clause);
  return fmt::format("{}: {}", fmt::join(places, ", "),
                     named_twice ? message.substr(clause.size() + 2) : message);
}

std::string quote(std::string_view text) {
  constexpr size_t kLongest = 80;
  std::string shown = "'";
  for (char c : text.substr(0, kLongest)) {
    unsigned char byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f)
      shown += fmt::format("\\x{:02x}", byte);
    else
      shown += c;
  }
  return shown + (text.size() > kLongest ? "...'" : "'");
}

std::string nearest_word(std::string_view word, const std::vector<std::string>& candidates) {
  constexpr size_t kLongest = 64;
  if (word.size() > kLongest) return "";
  std::string nearest;
  size_t fewest = std::max<size_t>(1, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    size_t distance = edit_distance(word, candidate);
    if (distance < fewest && distance < candidate.size()) {
      fewest = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

}  // namespace adagate
