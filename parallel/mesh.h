// How the ranks share the work: expert parallelism inside groups of `expert_parallel` neighbouring
// ranks, data parallelism over all of them.
#pragma once

#include <cstdint>
#include <memory>

#include "parallel/communicator.h"

namespace adagate {

// rank = replica * expert_parallel + expert_rank. Every rank has its own tokens.
//  - world: all ranks; dense parameters and token counts are summed over it;
//  - expert: the ranks that together hold all experts once; tokens are exchanged inside it;
//  - replica: the ranks that hold the same experts; expert gradients are summed over it.
struct Mesh {
  std::shared_ptr<Communicator> world;
  std::shared_ptr<Communicator> expert;
  std::shared_ptr<Communicator> replica;

  int ranks() const { return world->size(); }
  int expert_parallel() const { return expert->size(); }
  int replicas() const { return replica->size(); }
};

// Splits `world`. Throws Error when expert_parallel does not divide the number of ranks.
// Collective.
Mesh make_mesh(std::shared_ptr<Communicator> world, int expert_parallel);

// The mesh of a single rank.
Mesh make_self_mesh();

}  // namespace adagate
