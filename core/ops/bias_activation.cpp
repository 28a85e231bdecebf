#include "core/ops/bias_activation.h"

namespace adagate {
namespace {

// offsets empty: one group of all rows.
BiasActivationArgs forward_args(const Tensor& h, const Tensor& bias, const Tensor& offsets,
                                Activation activation) {
  return {.h = h.raw(),
          .bias = bias.raw(),
          .offsets = offsets.data<int64_t>(),
          .rows = h.rows(),
          .cols = h.cols(),
          .groups = offsets ? offsets.numel() - 1 : 1,
          .activation = activation,
          .type = h.dtype(),
          .bias_type = bias.dtype()};
}

Tensor run(const Tensor& h, const Tensor& bias, const Tensor& offsets, Activation activation) {
  bool gated = activation == Activation::swiglu;
  check(!gated || h.cols() % 2 == 0, "bias_activation: swiglu needs an even number of columns, {}",
        h.cols());
  BiasActivationArgs args = forward_args(h, bias, offsets, activation);
  check(!bias || bias.numel() == args.groups * h.cols(),
        "bias_activation: bias {} for {} groups of {} columns", bias.shape(), args.groups,
        h.cols());
  Shape shape = h.shape();
  if (gated) shape[-1] = h.cols() / 2;
  Tensor y = Tensor::empty(shape, h.dtype(), h.device());
  args.y = y.raw();
  launch_on(h.device(), args);
  if (!tape_needs({&h, &bias})) return y;
  return record("bias_activation", y,
                [h = h.detach(), bias = bias.detach(), dh = Gradient(h), dbias = Gradient(bias),
                 offsets, activation](const Tensor& dy) {
                  auto to_h = dh.destination();
                  auto to_bias = dbias.destination();
                  launch_on(h.device(), BiasActivationBackwardArgs{
                                            .forward = forward_args(h, bias, offsets, activation),
                                            .dy = dy.raw(),
                                            .dh = to_h.tensor.raw(),
                                            .dbias = to_bias.tensor.raw(),
                                            .dbias_type = to_bias.tensor.dtype(),
                                            .accumulate_dh = to_h.accumulate,
                                            .accumulate_dbias = to_bias.accumulate});
                });
}

}  // namespace

Tensor bias_activation(const Tensor& h, const Tensor& bias, Activation activation) {
  return run(h, bias, {}, activation);
}

Tensor bias_activation(const Tensor& h, const Tensor& bias, const GroupOffsets& offsets,
                       Activation activation) {
  check(offsets.groups() >= 1 && offsets.cover(offsets.groups(), h.rows()),
        "bias_activation: the offsets of {} groups don't cover the {} rows", offsets.groups(),
        h.rows());
  return run(h, bias, offsets.device, activation);
}

}  // namespace adagate
