// Sums and norms over any number of parameter groups, whoever holds them.
#include <cmath>
#include <vector>

#include "parallel/group_buffers.h"
#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"

using namespace adagate;

namespace {

// Those of the mesh, and a made-up one on the same ranks the other way round: held whole by those
// who share the experts.
std::vector<GroupRanks> groups_and_one_more(const Mesh& mesh) {
  std::vector<GroupRanks> groups;
  for (ParameterGroup g : kAllGroups) groups.push_back(mesh.group(g));
  groups.push_back({mesh.expert, mesh.replica});
  return groups;
}

int64_t elements_of(size_t group) {
  return 1000 + 7 * static_cast<int64_t>(group);
}

// Whole numbers, which any order sums alike: element i of the group's part.
double value_of(size_t group, int part, int64_t i) {
  return static_cast<double>((3 * i + 5 * part + 11 * static_cast<int64_t>(group)) % 17) - 8;
}

// On each rank a share of the values, such that the copies' shares sum up to them.
GroupBuffer share_of(size_t group, const GroupRanks& ranks) {
  Communicator& copies = *ranks.copies;
  int64_t n = elements_of(group);
  GroupBuffer buffer{allocate_gradient(copies, n, DType::f32), ranks};
  for (int64_t i = 0; i < n; ++i) {
    double value = value_of(group, ranks.parts->rank(), i);
    int64_t owner = i % copies.size();  // has what the others' shares of i leave
    double others = static_cast<double>(i % 5) * (copies.size() - 1);
    buffer.data.data<float>()[i] =
        static_cast<float>(copies.rank() == owner ? value - others : static_cast<double>(i % 5));
  }
  return buffer;
}

}  // namespace

TEST_CASE("parameter groups: each is summed over its copies and counts once in the norm") {
  for (int ranks : {1, 2, 4, 6})
    for (int expert_parallel : {1, 2, 3, 6}) {
      if (ranks % expert_parallel != 0) continue;
      CAPTURE(ranks, expert_parallel);
      run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
        std::vector<GroupBuffer> buffers;
        double squares = 0;
        for (const GroupRanks& group : groups_and_one_more(make_mesh(world, expert_parallel))) {
          size_t g = buffers.size();
          buffers.push_back(share_of(g, group));
          for (int part = 0; part < group.parts->size(); ++part)
            for (int64_t i = 0; i < elements_of(g); ++i)
              squares += value_of(g, part, i) * value_of(g, part, i);
        }
        std::vector<GradientReducer> reducers = make_reducers(buffers);
        check(reducers.size() == kParameterGroups + 1, "{} reducers", reducers.size());
        for (GradientReducer& reducer : reducers) reducer.finish();
        for (size_t g = 0; g < buffers.size(); ++g)
          for (int64_t i = 0; i < elements_of(g); ++i) {
            double got = buffers[g].data.data<float>()[i];
            double want = value_of(g, buffers[g].ranks.parts->rank(), i);
            check(got == want, "group {}, element {}: {}, not {}", g, i, got, want);
          }
        double norm = norm_over_ranks(buffers);
        check(norm == std::sqrt(squares), "the norm is {}, not {}", norm, std::sqrt(squares));
      });
    }
}
