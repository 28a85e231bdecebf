#include "core/io/path_text.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <pwd.h>
#include <unistd.h>

#include "core/base/error.h"

namespace adagate {
namespace {

bool starts_name(char c) {
  return c == '_' || std::isalpha(static_cast<unsigned char>(c));
}
bool continues_name(char c) {
  return c == '_' || std::isalnum(static_cast<unsigned char>(c));
}

std::string home_of(const std::string& user) {
  if (user.empty()) {
    if (const char* home = std::getenv("HOME"); home && *home) return home;
    const passwd* entry = getpwuid(getuid());
    check(entry && *entry->pw_dir, "~ is the home directory, but HOME is not set");
    return entry->pw_dir;
  }
  const passwd* entry = getpwnam(user.c_str());
  check(entry,
        "~{} is the home directory of a user, but no user has that name; a file that is "
        "called so is written ./~{}",
        user, user);
  return entry->pw_dir;
}

// The value of the variable whose name stands behind the $ at `at`, which moves behind the name.
std::string take_variable(const std::string& written, size_t& at) {
  bool braces = written[at + 1] == '{';
  size_t begin = at + 1 + (braces ? 1 : 0), end = begin;
  while (end < written.size() && continues_name(written[end])) ++end;
  std::string name = written.substr(begin, end - begin);
  if (braces) {
    check(end < written.size() && written[end] == '}' && !name.empty() && starts_name(name[0]),
          "${{ is not followed by the name of a variable and }}; $$ stands for the character $");
  }
  at = end + (braces ? 1 : 0);
  const char* value = std::getenv(name.c_str());
  check(value, "the environment variable {} is not set; $$ stands for the character $", name);
  check(*value, "the environment variable {} is empty", name);
  return value;
}

}  // namespace

std::string expand_path(const std::string& written) {
  std::string path;
  size_t at = 0;
  if (written.starts_with('~')) {
    at = std::min(written.find('/'), written.size());
    path = home_of(written.substr(1, at - 1));
  }
  while (at < written.size()) {
    char next = at + 1 < written.size() ? written[at + 1] : '\0';
    if (written[at] == '$' && (next == '{' || starts_name(next))) {
      path += take_variable(written, at);
      continue;
    }
    path += written[at];
    at += written[at] == '$' && next == '$' ? 2 : 1;
  }
  return path;
}

std::string path_as_written(const std::string& path) {
  std::string written = path.starts_with('~') ? "./" : "";
  for (char c : path) written += c == '$' ? "$$" : std::string(1, c);
  return written;
}

}  // namespace adagate
