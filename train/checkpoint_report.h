// What a checkpoint holds, for people.
#pragma once

#include <filesystem>
#include <string>

namespace adagate {

// State, mesh, shards (each verified by its checksum), tensors by parameter, and the configuration.
// Throws Error, as reading it would, when it is not complete and sound.
std::string checkpoint_report(const std::filesystem::path& path);

}  // namespace adagate
