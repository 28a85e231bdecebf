// Several tensors read by the host at once: every read makes it wait for the device.
#pragma once

#include <span>
#include <vector>

#include "core/tensor/tensor.h"

namespace adagate {

// The values of each, all f64. One read (core/device/copy.h), of the first one's device; none for
// no tensors.
std::vector<std::vector<double>> read_together(std::span<const Tensor> parts);

}  // namespace adagate
