// What the fuzz targets share: whatever the input, a function may throw adagate::Error and nothing
// else; a property that does not hold ends the program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "core/base/error.h"

namespace adagate::fuzz {

// Runs f; an Error is the right answer to bad input, and must say something.
template <class F>
void expect_only_error(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    if (*error.what() == '\0') std::abort();
  }
}

inline void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

}  // namespace adagate::fuzz
