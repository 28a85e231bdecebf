// Ranks whose tensors live on devices that their communicator can't reach: what is sent is copied
// to the host first, and what arrives is copied back.
#pragma once

#include <memory>

#include "parallel/communicator.h"

namespace adagate {

// `host` with a form for every device (Communicator::on). Groups split from it have them too.
std::unique_ptr<Communicator> stage_through_host(std::shared_ptr<Communicator> host);

}  // namespace adagate
