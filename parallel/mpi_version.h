// The MPI library that is linked.
#pragma once

#include <string>

namespace adagate {

// Its name and version, e.g. "Open MPI v4.1.4"; needs no session.
std::string mpi_version();

}  // namespace adagate
