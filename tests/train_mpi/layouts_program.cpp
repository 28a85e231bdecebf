// Started under mpirun: trains the tiny model on every layout of the ranks there are and compares
// each with a training on one rank. Exit status 1 when one differs.
#include <cstdio>

#include "parallel/mpi_session.h"
#include "parallel/placement.h"
#include "tests/train/tiny_run.h"

using namespace adagate;
using namespace adagate::tiny;

namespace {

// Largest distance over the layouts of world's ranks.
double worst_distance(const Scenario& s, MpiSession& session) {
  Outcome alone = train_on(s, {}, make_self_communicator());
  int ranks = session.world()->size();
  double worst = 0;
  for (int expert = 1; expert <= ranks; expert *= 2) {
    for (int64_t accumulation : {1, 2, 4}) {
      for (bool checkpointing : {false, true}) {
        Outcome here = train_on(s, {ranks, expert, accumulation, checkpointing}, session.world());
        worst = std::max(worst, distance(alone, here));
      }
    }
  }
  return session.world()->max(worst);
}

}  // namespace

int main() {
  configure_threads(1);
  MpiSession session;
  bool good = true;
  for (const Scenario& s :
       {Scenario{}, Scenario{.name = "few", .batch = 3}, Scenario{.masked_rows = true},
        Scenario{.policy = "top1", .all_on_one = true}, Scenario{.dropout = 0.2}}) {
    double distance = worst_distance(s, session);
    good = good && distance < 1e-9;
    if (session.world()->rank() == 0) {
      std::printf("%d ranks, %s%s%s: distance %.3g\n", session.world()->size(), s.name.c_str(),
                  s.masked_rows ? ", masked" : "", s.all_on_one ? ", all on one expert" : "",
                  distance);
    }
  }
  return good ? 0 : 1;
}
