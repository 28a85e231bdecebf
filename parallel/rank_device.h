// Where a rank computes, and the communicator that reaches there.
#pragma once

#include <memory>
#include <string_view>

#include "parallel/communicator.h"

namespace adagate {

struct RankDevice {
  Device device;
  std::shared_ptr<Communicator> world;  // with a form for `device` (Communicator::on)
};

// wanted: auto, cpu or cuda (core/device/device_choice.h). All ranks compute on devices of one
// kind: with auto, on the CPU unless all can have a GPU. Collective. Throws Error on all ranks when
// one can't have what is wanted.
RankDevice choose_rank_device(std::string_view wanted, std::shared_ptr<Communicator> world);

}  // namespace adagate
