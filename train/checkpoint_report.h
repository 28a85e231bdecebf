// What a checkpoint holds.
#pragma once

#include <filesystem>

#include "train/report.h"

namespace adagate {

// State, mesh, shards (each verified by its checksum), tensors by parameter, and the configuration.
// Throws Error, as reading it would, when it is not complete and sound.
Report checkpoint_report(const std::filesystem::path& path);

}  // namespace adagate
