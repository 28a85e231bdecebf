// Whether the memory of this machine holds a run, found out before the run takes any.
#pragma once

#include <string>

#include "parallel/communicator.h"
#include "parallel/machine_limits.h"
#include "train/config/run_config.h"
#include "train/plan_report.h"

namespace adagate {

// Throws Error when a rank would take more memory, activations included, than `budget` leaves it.
void check_memory(const MemoryEstimate& estimate, const MemoryBudget& budget);

// The same for a run that is to start, where activations are an estimate from above: throws Error
// when parameters and optimizer alone are too much; else a warning, or empty when all of it fits.
std::string tight_memory(const MemoryEstimate& estimate, const MemoryBudget& budget);

// What a rank of `local_ranks` on this machine may take of the memory that its tensors lie in.
MemoryBudget memory_for(Device device, int local_ranks);

// Collective. tight_memory() of every rank on its device; the first rank that has a warning logs
// it. config.model.vocabulary must be set.
void check_memory_of_ranks(Communicator& world, const RunConfig& config, const Task& task,
                           Device device);

}  // namespace adagate
