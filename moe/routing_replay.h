// The choices that a step's forward passes made when they ran first, for the runs that must repeat
// them: the pass after a counting pass, and blocks that are run again in backward.
#pragma once

#include <cstdint>
#include <vector>

#include "core/ops/routing.h"

namespace adagate {

class RoutingReplay {
 public:
  // keep: false when nothing is run a second time.
  void begin(int64_t micro_batches, int64_t layers, bool keep);
  void begin_micro_batch(int64_t index) { micro_batch_ = index; }

  // Of the micro-batch begun last.
  void keep(int64_t layer, const Selection& choice);
  // Throws Error when none is kept.
  const Selection& kept(int64_t layer) const;

 private:
  int64_t layers_ = 0, micro_batch_ = 0;
  std::vector<Selection> choices_;  // [micro-batches * layers], or none
};

}  // namespace adagate
