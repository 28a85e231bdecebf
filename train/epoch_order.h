// The order of the samples, as a hook gives it at an epoch's start.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "data/data_loader.h"
#include "parallel/communicator.h"

namespace adagate {

// The order of the samples in an epoch: a permutation of them, the same on every rank; empty: the
// seeded shuffle's, or that of the data without data.shuffle.
using EpochHook = std::function<std::vector<int64_t>(int64_t epoch)>;

// Asks the hook on all ranks for the order of the epoch that begins. Collective. Throws Error when
// ranks differ in it or it is no permutation.
void take_order(const EpochHook& hook, DataLoader& loader, Communicator& world);

}  // namespace adagate
