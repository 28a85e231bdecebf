// How long a run still takes, from what its steps, evaluations and checkpoints have taken.
#pragma once

#include <cstdint>

namespace adagate {

class RemainingTime {
 public:
  void add_step(double seconds, int64_t tokens);
  void add_evaluation(double seconds) { evaluation_.add(seconds); }
  void add_checkpoint(double seconds) { checkpoint_.add(seconds); }

  // Of the steps alone; 0 before the first.
  double tokens_per_second() const;
  // For what is still to come. Evaluations and checkpoints count once one has been measured.
  double seconds(int64_t steps, int64_t evaluations, int64_t checkpoints) const;

 private:
  // The mean of the last values, about kMemory of them. The first, which warms caches up, counts
  // only until there is a second.
  struct Average {
    double mean = 0;
    int64_t count = 0;
    void add(double value);
  };

  Average step_, tokens_, evaluation_, checkpoint_;
};

}  // namespace adagate
