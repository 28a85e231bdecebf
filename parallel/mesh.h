// How the ranks share the work: expert parallelism inside groups of `expert_parallel` neighbouring
// ranks, data parallelism over all of them.
#pragma once

#include <cstdint>
#include <memory>

#include "core/nn/parameter_group.h"
#include "parallel/communicator.h"

namespace adagate {

// Who holds the values of a parameter group: `copies` have the same values as this rank, `parts`
// have all of them once. The number of ranks is copies->size() * parts->size().
struct GroupRanks {
  std::shared_ptr<Communicator> copies;  // gradients are summed over them
  std::shared_ptr<Communicator> parts;   // squares are summed over them: each value counts once
};

// rank = replica * expert_parallel + expert_rank. Every rank has its own tokens.
//  - world: all ranks; token counts and losses are summed over it;
//  - expert: the ranks that together hold all experts once; tokens are exchanged inside it;
//  - replica: the ranks that hold the same experts;
//  - alone: this rank.
struct Mesh {
  std::shared_ptr<Communicator> world;
  std::shared_ptr<Communicator> expert;
  std::shared_ptr<Communicator> replica;
  std::shared_ptr<Communicator> alone;

  GroupRanks group(ParameterGroup group) const;
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
