// The configurations in the output directory of a run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace adagate {

// RUN/config.yaml: what the newest step was trained with, behind a line that says so.
std::filesystem::path config_file(const std::filesystem::path& run);

// RUN/config-until-00000600.yaml: what the steps up to 600 were trained with, where the run went on
// from there with another.
std::filesystem::path config_file_until(const std::filesystem::path& run, int64_t step);

// The run whose kept configuration `file` is: by its first line, its name, and what lies beside.
// Empty: it is any other file, also a copy elsewhere.
std::filesystem::path run_of_config(const std::filesystem::path& file);

// Keeps `yaml` as the configuration of a run that has gone on from `step` (0: from its start), and
// `before`, if not empty, as that of the steps up to there. What tells of later steps, which are no
// longer part of the run, goes. Throws Error naming the file.
void keep_configuration(const std::filesystem::path& run, const std::string& yaml, int64_t step,
                        const std::string& before);

}  // namespace adagate
