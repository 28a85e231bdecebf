// Where the tests find the sources. A function, not a macro on every command line: clones in
// different places share all objects but one.
#pragma once

#include <string>

namespace adagate {

// `path` is given from the repository's root.
std::string source_path(const std::string& path);

}  // namespace adagate
