// Copies between devices: the only way, besides kernels, by which tensor memory is read or written.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/device/device.h"

namespace adagate {

// What the calling thread has moved between tensors and the host so far. A read makes the host wait
// for the device; tensors of the CPU count like those of any device.
struct TransferStats {
  int64_t reads = 0, read_bytes = 0;    // to_host() and its like
  int64_t writes = 0, write_bytes = 0;  // tensors made from values of the host
};
TransferStats transfer_stats();

// In order with what the calling thread has launched on the devices before.
void copy_to_host(void* to, const void* from, size_t bytes, Device device);    // counted
void copy_from_host(void* to, const void* from, size_t bytes, Device device);  // counted
// Between two devices; neither need be the CPU.
void copy_between(void* to, Device to_device, const void* from, Device from_device, size_t bytes);

// Until everything launched on the device by this thread is done; the CPU's always is.
void synchronize(Device device);

}  // namespace adagate
