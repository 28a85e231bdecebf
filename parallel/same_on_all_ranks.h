// Ranks are started one by one, maybe on several hosts, each with its own command line, files and
// program. What they must have alike is compared, never taken on trust.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "parallel/communicator.h"

namespace adagate {

struct RankFact {
  std::string name;        // what differs, as the user knows it: a config key, an option
  std::string value;       // equal on all ranks or an error; of a file: its content's hash
  std::string shown = {};  // the value in messages, if not as it is compared
};

// The content of a file that may have another path on every host.
RankFact file_fact(std::string name, const std::string& path, uint64_t content_hash);

// Collective. Returns when all ranks pass the same facts in the same order; else throws the same
// Error on every rank, which names the first fact that differs, its values and who has which:
//   "train.batch is 8 on rank 0 (host a), 16 on rank 1 (host b): <remedy>".
// One exchange of a few bytes when all is well. `ranks` is the world: ranks are named by their
// number in it.
void same_on_all_ranks(Communicator& ranks, const std::vector<RankFact>& facts,
                       std::string_view remedy);

}  // namespace adagate
