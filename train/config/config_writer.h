// Writes config structs out: the effective config as YAML, and the reference page.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/base/fields.h"
#include "core/io/path_text.h"

namespace adagate {

// A value as YAML; reading the text gives the same value.
std::string yaml_text(bool value);
std::string yaml_text(int64_t value);
std::string yaml_text(double value);
std::string yaml_text(const std::string& value);
std::string yaml_text(const std::vector<int64_t>& value);
std::string yaml_text(const std::vector<double>& value);
std::string yaml_text(const std::vector<std::string>& value);
template <WordField T>
std::string yaml_text(const T& value) {
  return value.text();
}

std::string_view type_name(const bool&);
std::string_view type_name(const int64_t&);
std::string_view type_name(const double&);
std::string_view type_name(const std::string&);
std::string_view type_name(const std::vector<int64_t>&);
std::string_view type_name(const std::vector<double>&);
std::string_view type_name(const std::vector<std::string>&);
template <WordField T>
std::string_view type_name(const T&) {
  return "duration";
}

// One key of a struct, for whoever prints it.
struct FieldInfo {
  std::string section;  // path of the section it stands in, "moe.gate"; empty at the root
  std::string key;
  std::string value;  // as YAML
  std::string type;
  std::string doc;
  Constraint constraint;
  bool is_section = false;  // then only section, key and doc are set

  std::string path() const { return section.empty() ? key : section + "." + key; }
};

// Visits a struct, listing fields and sections in order, the fields of a section behind it.
class FieldLister {
 public:
  FieldLister(std::string section, std::vector<FieldInfo>& fields)
      : section_(std::move(section)), fields_(fields) {}
  template <class T>
  void field(std::string_view key, const T& value, std::string_view doc,
             const Constraint& constraint = {}) {
    fields_.push_back({section_, std::string(key), yaml_text(value), std::string(type_name(value)),
                       std::string(doc), constraint});
    if constexpr (std::is_same_v<T, std::string>) {
      if (!constraint.is_path) return;
      fields_.back().value = yaml_text(path_as_written(value));
      fields_.back().type = "path";
    }
  }
  template <class S>
  void section(std::string_view key, const S& value, std::string_view doc) {
    fields_.push_back({section_, std::string(key), "", "", std::string(doc), {}, true});
    FieldLister inner(section_.empty() ? std::string(key) : section_ + "." + std::string(key),
                      fields_);
    S::visit(inner, value);
  }

 private:
  std::string section_;
  std::vector<FieldInfo>& fields_;
};

template <class S>
std::vector<FieldInfo> list_fields(const S& config) {
  std::vector<FieldInfo> fields;
  FieldLister lister("", fields);
  S::visit(lister, config);
  return fields;
}

std::string yaml_of(const std::vector<FieldInfo>& fields, bool comments);

// The whole struct as YAML, each key with what it means behind a '#' if `comments`.
template <class S>
std::string write_yaml(const S& config, bool comments = true) {
  return yaml_of(list_fields(config), comments);
}

// The page docs/configuration.md: how files and --set work, and a table of every key of RunConfig.
std::string configuration_reference();

}  // namespace adagate
