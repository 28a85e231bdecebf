// MPI with its error codes turned into Errors. Included by the MPI sources only.
#pragma once

#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include "core/base/error.h"

namespace adagate {

[[noreturn]] void fail_mpi(int code, const char* call);

// ADAGATE_MPI(MPI_Barrier(comm)): throws Error with the call's text and MPI's own explanation.
#define ADAGATE_MPI(call)                                           \
  do {                                                              \
    int adagate_code = (call);                                      \
    if (adagate_code != MPI_SUCCESS) fail_mpi(adagate_code, #call); \
  } while (0)

}  // namespace adagate
