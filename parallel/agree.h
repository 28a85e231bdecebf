// Steps that all ranks take together or none: an error on one becomes the same error on all.
#pragma once

#include <string>

#include "core/base/error.h"
#include "parallel/communicator.h"

namespace adagate {

// Collective. `error` is this rank's message, empty if all went well. Returns if all are empty,
// else throws on every rank an Error with message and exit code of the lowest failing rank and,
// where others did not fail, the failing ranks and their hosts. `ranks` is the world.
void agree(Communicator& ranks, const std::string& error, int exit_code = 1);

// Collective: the root's text, on every rank.
std::string broadcast_text(Communicator& ranks, std::string text, int root);

// Runs fn on this rank and agrees on the outcome. fn must not issue collectives of its own after a
// point where it may throw on one rank only.
template <class F>
void on_all_ranks(Communicator& ranks, F&& fn) {
  std::string error;
  int exit_code = 1;
  constexpr const char* kUnknown = "unknown error";
  try {
    fn();
  } catch (const Error& e) {
    error = *e.what() ? e.what() : kUnknown;
    exit_code = e.exit_code();
  } catch (const std::exception& e) {
    error = *e.what() ? e.what() : kUnknown;
  }
  agree(ranks, error, exit_code);
}

}  // namespace adagate
