// Paths as a user writes them, with ~ and ${VARIABLE}: where no shell has read them before, in a
// configuration, behind `--output=` or in quotes.
#pragma once

#include <string>

namespace adagate {

// The path that `written` stands for. A leading ~ is the home directory of this user ($HOME), ~name
// that of another one; ${NAME} and $NAME are environment variables. $$ stands for $, ./~ for a file
// named ~; a $ before anything else stands for itself. Throws Error, without `written`, when a user
// or a variable doesn't exist, when a variable is empty (what follows would move to the root), or
// when a brace is not closed.
std::string expand_path(const std::string& written);

// What expand_path() takes to `path`.
std::string path_as_written(const std::string& path);

}  // namespace adagate
