#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include "parallel/mpi_version.h"

#include <algorithm>
#include <mpi.h>

namespace adagate {

std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);  // one of the few calls allowed before MPI_Init
  std::string all(text, static_cast<size_t>(length));
  return all.substr(0, std::min(all.find(','), all.find('\n')));
}

}  // namespace adagate
