#include "parallel/mesh.h"

#include "core/base/error.h"

namespace adagate {

GroupRanks Mesh::group(ParameterGroup group) const {
  switch (group) {
    case ParameterGroup::dense:
      return {world, alone};
    case ParameterGroup::expert:
      return {replica, expert};
  }
  fail("the mesh does not know who holds the parameters of group {}", static_cast<int>(group));
}

Mesh make_mesh(std::shared_ptr<Communicator> world, int expert_parallel) {
  int ranks = world->size();
  check(expert_parallel >= 1 && ranks % expert_parallel == 0,
        "expert_parallel = {} does not divide the number of ranks, {}: use one of its divisors, or "
        "start another number of ranks",
        expert_parallel, ranks);
  Mesh mesh{world, world, world, make_self_communicator()};
  // The trivial splits share the world's communicator: fewer groups, and memory allocated through
  // one serves the other.
  if (expert_parallel < ranks) {
    int replica = world->rank() / expert_parallel;
    int expert_rank = world->rank() % expert_parallel;
    mesh.expert = world->split(replica, expert_rank);
    if (expert_parallel > 1) mesh.replica = world->split(expert_rank, replica);
  } else if (ranks > 1) {
    mesh.replica = world->split(world->rank(), 0);
  }
  return mesh;
}

Mesh make_self_mesh() {
  std::shared_ptr<Communicator> self = make_self_communicator();
  return {self, self, self, self};
}

}  // namespace adagate
