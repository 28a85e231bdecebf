// Which kind of device a program computes on, as users ask for it, and the library behind it.
#pragma once

#include <string>
#include <string_view>

#include "core/device/device.h"

namespace adagate {

constexpr std::string_view kDeviceChoices[] = {"auto", "cpu", "cuda"};

// cpu: no library is looked for. cuda: opens libadagate_cuda.so; throws Error that says what is
// missing and what helps when there is none, it can't be opened, or it finds no GPU. auto: cuda
// where there is a GPU that it can use, else cpu; warns where there is one that it can't use.
DeviceKind choose_device_kind(std::string_view wanted);

// Why CUDA can't be used here, and what helps; empty: it can, and its library is open.
std::string why_no_cuda();

// A GPU of this machine for one of its ranks: they take turns.
Device device_for_rank(DeviceKind kind, int local_rank);

// The library's file: $ADAGATE_CUDA_LIBRARY, else beside the program or in the library folder of
// its installation; empty: there is none.
std::string cuda_library();

}  // namespace adagate
