// What this program was built from and with.
#pragma once

#include <string>

namespace adagate {

// "adagate 0.1.0 (1a2b3c4)".
std::string program_version();

// program_version() and a line each on compiler and libraries.
std::string version_text();

}  // namespace adagate
