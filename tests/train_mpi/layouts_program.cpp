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
        worst = std::max(worst, distance(alone, here).value);
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
  const std::pair<const char*, Scenario> scenarios[] = {
      {"padded", kPadded},
      {"modern form", kModern},
      {"fewer samples than ranks", kFew},
      {"ranks without targets", kMasked},
      {"all on one expert", kAllOnOne},
      {"dropout", kDropout},
      {"dropout and random routing, modern form", kModernDropout}};
  for (const auto& [name, scenario] : scenarios) {
    double distance = worst_distance(scenario, session);
    good = good && distance < 1e-9;
    if (session.world()->rank() == 0)
      std::printf("%d ranks, %s: distance %.3g\n", session.world()->size(), name, distance);
  }
  return good ? 0 : 1;
}
