// The terminal that a person watches, if there is one.
#pragma once

#include <functional>

namespace adagate {

using EnvironmentOf = std::function<const char*(const char*)>;

// False where a line that renews itself is not understood or not wanted: TERM missing or "dumb",
// NO_COLOR, CI.
bool renewing_lines_wanted(const EnvironmentOf& get);

// That of a descriptor. A launcher gives its ranks pseudo-terminals without a size whatever its own
// output is; there the terminal is the launcher's, and none if that one writes elsewhere.
class Terminal {
 public:
  explicit Terminal(int output);
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  bool exists() const { return watched_ >= 0; }
  // Of a line, now: windows are resized. Where the terminal doesn't tell, COLUMNS, else 80.
  int columns() const;

 private:
  int watched_ = -1;
};

}  // namespace adagate
