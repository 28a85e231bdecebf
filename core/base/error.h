// Errors that reach the user: one exception type, thrown with the numbers in the message.
#pragma once

#include <fmt/format.h>
#include <stdexcept>
#include <string>

namespace adagate {

// What went wrong, in the user's words: names file, line, key or shape, and the remedy where there
// is one. `main` prints it once, ends every rank and exits with exit_code().
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, int exit_code = 1)
      : std::runtime_error(message), exit_code_(exit_code) {}
  int exit_code() const { return exit_code_; }

 private:
  int exit_code_;
};

// Throws Error with a formatted message: fail("{} has {} rows", name, rows).
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

// Throws Error with the formatted message unless `condition` holds; the message is built only then.
template <class... Args>
void check(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) [[unlikely]]
    throw Error(fmt::format(format, std::forward<Args>(args)...));
}

// What f() returns; an Error of it gets `key` in front: named("data.train", [&] { ... }).
template <class F>
auto named(const std::string& key, F&& f) {
  try {
    return f();
  } catch (const Error& e) {
    throw Error(key + ": " + e.what(), e.exit_code());
  }
}

}  // namespace adagate
