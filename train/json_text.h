// JSON for other programs to read.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace adagate {

// Indented, with a line break at the end. A number that is not finite is null; bytes that are no
// UTF-8 become U+FFFD.
std::string json_text(const nlohmann::ordered_json& json);

}  // namespace adagate
