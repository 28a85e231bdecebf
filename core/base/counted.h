// Numbers with their noun, for messages and tables.
#pragma once

#include <fmt/format.h>
#include <string>
#include <string_view>

namespace adagate {

// "1 rank", "2 ranks", "1.5 experts".
template <class Number>
std::string counted(Number n, std::string_view one) {
  return fmt::format("{} {}{}", n, one, n == 1 ? "" : "s");
}

}  // namespace adagate
