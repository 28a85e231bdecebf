// Phases of a step as a device's queue passes them (core/base/phase_timer.h).
#pragma once

#include <memory>

#include "core/base/phase_timer.h"
#include "core/device/device.h"

namespace adagate {

// For the calling thread's queue on `device`; null where the host's clock is the right one: on the
// CPU, and on devices without a clock.
std::unique_ptr<PhaseClock> device_phase_clock(Device device);

}  // namespace adagate
