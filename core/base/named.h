// Tables of named things: constexpr arrays whose entries have a `name` and a `help`, one line each.
// Lists of names, help texts and errors come from the table.
#pragma once

#include <fmt/ranges.h>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"

namespace adagate {

template <class Table>
std::vector<std::string> names_of(const Table& table) {
  std::vector<std::string> names;
  for (const auto& entry : table) names.emplace_back(entry.name);
  return names;
}

// "top1: the most probable expert; top2: .."
template <class Table>
std::string help_of(const Table& table) {
  std::string text;
  for (const auto& entry : table)
    text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", entry.name, entry.help);
  return text;
}

// The entry of that name. Throws Error "KEY is 'NAME': one of .." when there is none.
template <class Table>
const auto& entry_named(std::string_view key, const Table& table, std::string_view name) {
  for (const auto& entry : table)
    if (entry.name == name) return entry;
  fail("{} is '{}': one of {}", key, name, fmt::join(names_of(table), ", "));
}

}  // namespace adagate
