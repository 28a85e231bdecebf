#include "moe/moe_layer.h"

#include "core/autograd/phase_span.h"

namespace adagate {

MoeLayer::MoeLayer(const MoeLayerConfig& config, const Mesh& mesh)
    : config_(config),
      dispatcher_(mesh.expert, config.moe.experts),
      gate_(config.width, config.moe.experts, config.layer, config.moe.gate, config.initial_stddev,
            config.make_policy, dispatcher_.needs_host_counts()),
      experts_({.width = config.width,
                .hidden = config.hidden,
                .experts = config.moe.experts,
                .first = dispatcher_.first_expert(),
                .local = dispatcher_.local_experts(),
                .activation = config.activation,
                .bias = config.bias,
                .initial_stddev = config.initial_stddev,
                .output_initial_stddev = config.output_initial_stddev}) {
  add("gate", gate_);
  add("experts", experts_);
}

Tensor MoeLayer::forward(const Tensor& x, const StepContext& context, const TokenRows& rows) {
  RoutingSink* sink = context.routing;
  RoutingPlan plan;
  Dispatched dispatched;
  Tensor y;
  {
    PhaseSpan span(Phase::gate);
    plan = gate_.forward(x, context, rows);
  }
  {
    PhaseSpan span(Phase::dispatch);
    dispatched = dispatcher_.dispatch(x, plan);
  }
  if (sink && !sink->earlier_choice(config_.layer)) {
    double gate_flops = 2.0 * static_cast<double>(x.numel() * config_.moe.experts);
    auto row_bytes = x.cols() * static_cast<int64_t>(size_of(x.dtype()));
    // Rows travel to the experts and back.
    sink->add_work(config_.layer, {.rows = dispatched.arriving,
                                   .rows_sent = dispatched.rows_sent,
                                   .bytes_sent = 2 * dispatched.rows_sent * row_bytes,
                                   .flops = gate_flops,
                                   .flops_per_row = experts_.flops_per_row()});
  }
  {
    PhaseSpan span(Phase::experts);
    y = experts_.forward(dispatched.rows, dispatched.offsets);
  }
  PhaseSpan span(Phase::combine);
  return dispatcher_.combine(y, dispatched);
}

}  // namespace adagate
