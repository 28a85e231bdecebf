#include "parallel/rank_device.h"

#include "core/base/log.h"
#include "core/device/device_choice.h"
#include "parallel/agree.h"
#include "parallel/placement.h"
#include "parallel/staged_communicator.h"

namespace adagate {

RankDevice choose_rank_device(std::string_view wanted, std::shared_ptr<Communicator> world) {
  DeviceKind kind = DeviceKind::cpu;
  on_all_ranks(*world, [&] { kind = choose_device_kind(wanted); });
  int64_t with_gpu = world->sum<int64_t>(kind == DeviceKind::cuda);
  if (with_gpu < world->size() && kind == DeviceKind::cuda) {
    log::warn("computing on the CPU: only {} of {} ranks find a GPU", with_gpu, world->size());
    kind = DeviceKind::cpu;
  }
  if (kind == DeviceKind::cpu) return {{}, std::move(world)};
  return {device_for_rank(kind, read_launch_environment().local_rank),
          stage_through_host(std::move(world))};
}

}  // namespace adagate
