// A few hundred numbers per step: a thread per layer. Which loss it is, is known to the compiler:
// the table's function is the device's there.
#include <utility>

#include "core/device/cuda/kernel.h"
#include "core/device/cuda/stream.h"
#include "core/ops/balance_losses.h"

namespace adagate {
namespace {

using namespace cuda;

template <size_t kLoss>
__global__ void routing_loss_gradients(RoutingLossGradientsArgs a) {
  const int64_t layer = global_thread();
  if (layer >= a.layers) return;
  const RoutingSumsView sums{a.sums + layer * routing_sums_size(a.experts), a.experts};
  double* gradient = a.gradients + layer * (a.experts + 1);
  constexpr auto function = kBalanceLosses[kLoss].gradient;
  bool written = false;
  if constexpr (function != nullptr) {
    if (a.factor != 0) {
      function(sums, a.factor, gradient);
      written = true;
    }
  }
  if (!written)
    for (int64_t e = 0; e < a.experts; ++e) gradient[e] = 0;
  gradient[a.experts] = sums.tokens() > 0 ? a.z_factor / sums.tokens() : 0.0;
}

template <size_t kLoss>
void run(CudaStream& stream, const RoutingLossGradientsArgs& a) {
  ADAGATE_LAUNCH((routing_loss_gradients<kLoss>), blocks_for(a.layers, kWarp), kWarp, 0, stream, a);
}

template <size_t... kLosses>
void run_chosen(CudaStream& stream, const RoutingLossGradientsArgs& a,
                std::index_sequence<kLosses...>) {
  const auto chosen = static_cast<size_t>(a.loss);
  ((kLosses == chosen ? run<kLosses>(stream, a) : void()), ...);
}

}  // namespace

void launch(CudaStream& stream, const RoutingLossGradientsArgs& a) {
  if (a.layers == 0) return;
  run_chosen(stream, a, std::make_index_sequence<kBalanceLosses.size()>{});
}

}  // namespace adagate
