#include "bench/table.h"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/base/error.h"

namespace adagate {
namespace {

std::string text_of(const BenchTable::Cell& cell, int digits) {
  if (const auto* word = std::get_if<std::string>(&cell)) return *word;
  if (const auto* number = std::get_if<double>(&cell))
    return fmt::format("{:.{}f}", *number, digits);
  return "-";
}

nlohmann::ordered_json json_of(const BenchTable::Cell& cell) {
  if (const auto* word = std::get_if<std::string>(&cell)) return *word;
  if (const auto* number = std::get_if<double>(&cell)) return *number;
  return nullptr;
}

}  // namespace

void BenchTable::add(std::vector<Cell> row) {
  check(row.size() == columns_.size(), "{}: {} cells for {} columns", name_, row.size(),
        columns_.size());
  rows_.push_back(std::move(row));
}

std::string BenchTable::text() const {
  std::vector<size_t> widths;
  for (size_t c = 0; c < columns_.size(); ++c) {
    size_t width = columns_[c].head.size();
    for (const auto& row : rows_) {
      width = std::max(width, text_of(row[c], columns_[c].digits).size());
    }
    widths.push_back(width);
  }
  std::string out = title_ + "\n";
  auto line = [&](auto&& cell_text, auto&& is_word) {
    for (size_t c = 0; c < columns_.size(); ++c) {
      out += c ? "  " : "";
      out += is_word(c) ? fmt::format("{:<{}}", cell_text(c), widths[c])
                        : fmt::format("{:>{}}", cell_text(c), widths[c]);
    }
    out.erase(out.find_last_not_of(' ') + 1);
    out += '\n';
  };
  auto column_of_words = [&](size_t c) {
    return !rows_.empty() && std::holds_alternative<std::string>(rows_.front()[c]);
  };
  line([&](size_t c) { return columns_[c].head; }, column_of_words);
  for (const auto& row : rows_) {
    line([&](size_t c) { return text_of(row[c], columns_[c].digits); }, column_of_words);
  }
  return out;
}

std::string BenchTable::json() const {
  nlohmann::ordered_json table{{"title", title_}, {"rows", nlohmann::ordered_json::array()}};
  for (const auto& row : rows_) {
    nlohmann::ordered_json object;
    for (size_t c = 0; c < columns_.size(); ++c) object[columns_[c].key] = json_of(row[c]);
    table["rows"].push_back(std::move(object));
  }
  return table.dump(2);
}

std::string to_json(const std::vector<BenchTable>& tables) {
  nlohmann::ordered_json all;
  for (const BenchTable& table : tables)
    all[table.name()] = nlohmann::ordered_json::parse(table.json());
  return all.dump(2) + "\n";
}

bool is_bench_json(const std::string& text) {
  auto all = nlohmann::json::parse(text, nullptr, false);
  return all.is_object() && std::all_of(all.begin(), all.end(), [](const auto& table) {
           return table.is_object() && table.contains("title") && table.contains("rows");
         });
}

}  // namespace adagate
