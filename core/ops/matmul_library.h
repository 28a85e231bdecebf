// The library behind the matrix products.
#pragma once

#include <string>

namespace adagate {

// Name and version of the library that is linked: "oneDNN 2.6.3", or "Eigen 3.4.0".
std::string matmul_library();

}  // namespace adagate
