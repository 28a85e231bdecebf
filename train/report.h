// What is told of a file or a folder, once for a person and once for a program.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace adagate {

struct Report {
  std::string text = {};
  nlohmann::ordered_json json;  // fields: docs/commands.md
};

}  // namespace adagate
