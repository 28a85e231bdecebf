// Amounts of memory and disk for people.
#pragma once

#include <fmt/format.h>
#include <string>

namespace adagate {

// "512 bytes", "1.5 KiB", "20.0 MiB", ... "3.1 EiB": in the unit in which it is from 1 to 1024.
inline std::string bytes_text(double bytes) {
  if (bytes < 1024) return fmt::format("{:.0f} bytes", bytes);
  const char* unit = "KiB";
  bytes /= 1024;
  // What would round to 1024.0 is 1.0 of the next unit.
  for (const char* larger : {"MiB", "GiB", "TiB", "PiB", "EiB"}) {
    if (bytes < 1023.95) break;
    bytes /= 1024;
    unit = larger;
  }
  return fmt::format("{:.1f} {}", bytes, unit);
}
inline std::string bytes_text(int64_t bytes) {
  return bytes_text(static_cast<double>(bytes));
}

}  // namespace adagate
