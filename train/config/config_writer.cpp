#include "train/config/config_writer.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace adagate {
namespace {

constexpr size_t kColumns = 100;

// Words that YAML reads as themselves wherever they stand.
bool is_plain(const std::string& text) {
  auto allowed = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '/' || c == '.' || c == '-';
  };
  if (text.empty() || !std::all_of(text.begin(), text.end(), allowed)) return false;
  if (text.starts_with('-') || text.starts_with("...")) return false;
  return text != "null" && text != "Null" && text != "NULL";
}

template <class T>
std::string list_text(const std::vector<T>& values) {
  std::vector<std::string> words;
  for (const T& value : values) words.push_back(yaml_text(value));
  return fmt::format("[{}]", fmt::join(words, ", "));
}

size_t depth_of(const std::string& section) {
  return section.empty() ? 0 : 1 + std::count(section.begin(), section.end(), '.');
}

// `text` as comment lines of at most kColumns.
std::string comment_lines(const std::string& text, const std::string& indent) {
  std::string lines, line;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = std::min(text.find(' ', begin), text.size());
    std::string word = text.substr(begin, end - begin);
    if (!line.empty() && indent.size() + 3 + line.size() + word.size() > kColumns) {
      lines += indent + "# " + line + "\n";
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
    begin = end + 1;
  }
  return lines + indent + "# " + line + "\n";
}

std::string yaml_field(const FieldInfo& field, const std::string& indent, bool comments) {
  std::string line = fmt::format("{}{}: {}", indent, field.key, field.value);
  if (!comments) return line + "\n";
  std::string doc = field.doc;
  if (!field.constraint.choices.empty())
    doc += fmt::format(" ({})", fmt::join(field.constraint.choices, ", "));
  if (line.size() + 4 + doc.size() <= kColumns) return line + "  # " + doc + "\n";
  return comment_lines(doc, indent) + line + "\n";
}

}  // namespace

std::string yaml_text(bool value) {
  return value ? "true" : "false";
}
std::string yaml_text(int64_t value) {
  return fmt::format("{}", value);
}
std::string yaml_text(double value) {
  return fmt::format("{}", value);
}
std::string yaml_text(const std::vector<int64_t>& value) {
  return list_text(value);
}
std::string yaml_text(const std::vector<double>& value) {
  return list_text(value);
}
std::string yaml_text(const std::vector<std::string>& value) {
  return list_text(value);
}

std::string yaml_text(const std::string& value) {
  if (is_plain(value)) return value;
  std::string text = "\"";
  for (char c : value) {
    unsigned char byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') text += '\\';
    if (byte < 0x20 || byte == 0x7f)
      text += fmt::format("\\x{:02x}", byte);
    else
      text += c;
  }
  return text + '"';
}

std::string_view type_name(const bool&) {
  return "true or false";
}
std::string_view type_name(const int64_t&) {
  return "integer";
}
std::string_view type_name(const double&) {
  return "number";
}
std::string_view type_name(const std::string&) {
  return "text";
}
std::string_view type_name(const std::vector<int64_t>&) {
  return "list of integers";
}
std::string_view type_name(const std::vector<double>&) {
  return "list of numbers";
}
std::string_view type_name(const std::vector<std::string>&) {
  return "list of texts";
}

std::string yaml_of(const std::vector<FieldInfo>& fields, bool comments) {
  std::string text;
  for (const FieldInfo& field : fields) {
    std::string indent(2 * depth_of(field.section), ' ');
    if (!field.is_section) {
      text += yaml_field(field, indent, comments);
      continue;
    }
    std::string line = fmt::format("{}{}:", indent, field.key);
    if (comments) line += "  # " + field.doc;
    // A blank line before each section of the root.
    text += (field.section.empty() ? "\n" : "") + line + "\n";
  }
  return text;
}

}  // namespace adagate
