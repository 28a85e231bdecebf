// What every communicator must do, as functions that throw Error: the same cases run on one rank,
// on thread ranks and under mpirun. Assertions of the test framework are not for several threads.
#pragma once

#include <span>

#include "parallel/communicator.h"

namespace adagate::suite {

struct Case {
  const char* name;
  void (*run)(Communicator& world);
};

std::span<const Case> communicator_cases();  // all
std::span<const Case> asynchronous_cases();  // those of calls that go on beside others

}  // namespace adagate::suite
