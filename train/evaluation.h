// Loss of a model over a data set.
#pragma once

#include <functional>

#include "data/data_loader.h"
#include "models/decoder.h"
#include "moe/routing_step.h"
#include "parallel/mesh.h"

namespace adagate {

struct EvaluationResult {
  double loss = 0;  // mean cross-entropy per target, nats
  int64_t targets = 0;
  bool stopped = false;  // before its end: there is no loss
};

// Runs the pass without recording or dropout; the same result on every rank. `routing`, if given,
// has the statistics afterwards. Once `stop`, asked before each batch, is true on some rank, all of
// them stop. Collective: all ranks run as many batches.
EvaluationResult evaluate(Decoder& model, const EvaluationPass& pass, const Mesh& mesh,
                          RoutingStep* routing, const std::function<bool()>& stop = {});

}  // namespace adagate
