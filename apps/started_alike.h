// Ranks are started one by one: each with a command line, an environment and libraries of its own.
#pragma once

#include <fmt/format.h>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/mpi_session.h"
#include "parallel/same_on_all_ranks.h"

namespace adagate {

// Collective. Throws the same Error on every rank, which names the difference, when the ranks run
// different commands, `options` are not the same on all of them, or libraries and environment
// variables that change numbers are others. (MpiSession has compared the programs.) Includes
// check_launch().
void check_started_alike(MpiSession& session, std::string_view command,
                         std::vector<RankFact> options);

// An option that is compared: option("--batch", 8).
template <class T>
RankFact option(std::string name, const T& value) {
  return {std::move(name), fmt::format("{}", value)};
}

}  // namespace adagate
