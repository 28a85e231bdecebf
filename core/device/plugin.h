// Libraries of adagate's own that a program opens at run time, so that it starts where what they
// need is missing.
#pragma once

#include <string>
#include <string_view>

namespace adagate {

// $variable, else the file beside the program or in the library folder of its installation; empty:
// there is none.
std::string find_plugin(std::string_view file, const char* variable);

// The address of `function`. Never closed: what comes from a library may live as long as the
// process. `what` is for messages: "the backend for cuda". Throws Error.
void* open_plugin(const std::string& file, const char* function, const std::string& what);

}  // namespace adagate
