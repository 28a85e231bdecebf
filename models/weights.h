// Weights of a model as a plain file of tensors, apart from any run.
#pragma once

#include <filesystem>
#include <vector>

#include "core/nn/parameter.h"
#include "parallel/mesh.h"

namespace adagate {

// Fills parameters from one plain safetensors file by their global names; the file's and the
// model's names must be the same set, with the same shapes. Throws Error naming file and tensor.
void load_weights(const std::filesystem::path& file, const std::vector<Parameter*>& parameters);

// Writes the parameters' values to one plain safetensors file by their global names. Collective.
void export_weights(const std::filesystem::path& file, const std::vector<Parameter*>& parameters,
                    const Mesh& mesh);

}  // namespace adagate
