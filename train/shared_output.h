// The output directory of a run on several hosts: one folder, seen by all of them.
#pragma once

#include <chrono>
#include <filesystem>

#include "parallel/communicator.h"

namespace adagate {

// Collective. Rank 0 writes an empty file `.adagate-start-<16 hex digits>` into `output` and
// removes it again, the other ranks look for it in theirs, for `patience` at most: a network file
// system may show what is new a moment later. Throws Error naming the ranks and hosts that see
// another folder. A marker that a killed start left is removed by the next one; nothing else has
// this name.
void check_output_shared(Communicator& world, const std::filesystem::path& output,
                         std::chrono::milliseconds patience = std::chrono::seconds(5));

}  // namespace adagate
