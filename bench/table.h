// Results of a benchmark: a title, columns, rows; printed as text and as JSON.
#pragma once

#include <string>
#include <variant>
#include <vector>

namespace adagate {

class BenchTable {
 public:
  struct Column {
    std::string key;   // in JSON
    std::string head;  // in text
    int digits = 1;    // after the point, for numbers
  };
  // monostate: does not apply.
  using Cell = std::variant<std::monostate, std::string, double>;

  BenchTable(std::string name, std::string title, std::vector<Column> columns)
      : name_(std::move(name)), title_(std::move(title)), columns_(std::move(columns)) {}

  // One cell per column.
  void add(std::vector<Cell> row);

  const std::vector<std::vector<Cell>>& rows() const { return rows_; }
  std::string text() const;
  const std::string& name() const { return name_; }
  // {"title": .., "rows": [{key: value, ..}, ..]}
  std::string json() const;

 private:
  std::string name_, title_;
  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

// {name: table, ..}
std::string to_json(const std::vector<BenchTable>& tables);
bool is_bench_json(const std::string& text);  // such an object

}  // namespace adagate
