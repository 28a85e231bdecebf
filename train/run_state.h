// The state of a run that checkpoints hold, by kind:
//   value      parameters                        adam_m, adam_v   their moments
//   state      what modules register besides     run              what the caller of the run adds
//   data       where the order of the samples is not that of the shuffle: `order`
#pragma once

#include <string_view>
#include <vector>

#include "core/nn/parameter_store.h"
#include "core/nn/state.h"

namespace adagate {

// Of a model alone: what an evaluation reads.
constexpr std::string_view kModelKinds[] = {"value", "state"};

// Values of the parameters, and what modules have registered. Throws Error on a repeated name.
std::vector<StateTensor> model_states(const ParameterStore& store, Module& model);

}  // namespace adagate
