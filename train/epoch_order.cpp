#include "train/epoch_order.h"

#include "core/io/safetensors.h"
#include "parallel/agree.h"
#include "parallel/same_on_all_ranks.h"
#include "parallel/watchdog.h"
#include "train/resume.h"

namespace adagate {

void take_order(const EpochHook& hook, DataLoader& loader, Communicator& world) {
  int64_t epoch = loader.position().epoch;
  set_progress_note(fmt::format("start of epoch {}", epoch));
  std::vector<int64_t> order = hook(epoch);
  std::string_view bytes(reinterpret_cast<const char*>(order.data()), 8 * order.size());
  same_on_all_ranks(
      world,
      {{fmt::format("the order of the samples in epoch {}", epoch),
        fmt::format("{} samples, {}", order.size(), hash_text(checksum_bytes(bytes)))}},
      "the hook at an epoch's start gives all ranks the same");
  on_all_ranks(world, [&] { loader.set_order(std::move(order)); });
}

}  // namespace adagate
