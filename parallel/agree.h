// Steps that all ranks take together or none: an error on one becomes the same error on all.
#pragma once

#include <string>

#include "core/base/error.h"
#include "parallel/communicator.h"

namespace adagate {

// Collective. `error` is this rank's message, empty if all went well. Returns if all are empty,
// else throws on every rank an Error with the message of the lowest failing rank and, where others
// did not fail, the failing ranks and their hosts. `ranks` is the world.
void agree(Communicator& ranks, const std::string& error);

// Runs fn on this rank and agrees on the outcome. fn must not issue collectives of its own after a
// point where it may throw on one rank only.
template <class F>
void on_all_ranks(Communicator& ranks, F&& fn) {
  std::string error;
  try {
    fn();
  } catch (const std::exception& e) {
    error = e.what();
    if (error.empty()) error = "unknown error";
  }
  agree(ranks, error);
}

}  // namespace adagate
