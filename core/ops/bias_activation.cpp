#include "core/ops/bias_activation.h"

namespace adagate {
namespace {

BiasActivationArgs forward_args(const Tensor& h, const Tensor& bias,
                                const std::vector<int64_t>& offsets, Activation activation) {
  return {.h = h.raw(),
          .bias = bias.raw(),
          .offsets = offsets.data(),
          .rows = h.rows(),
          .cols = h.cols(),
          .groups = static_cast<int64_t>(offsets.size()) - 1,
          .activation = activation,
          .type = h.dtype(),
          .bias_type = bias.dtype()};
}

}  // namespace

Tensor bias_activation(const Tensor& h, const Tensor& bias, Activation activation) {
  int64_t offsets[] = {0, h.rows()};
  return bias_activation(h, bias, offsets, activation);
}

Tensor bias_activation(const Tensor& h, const Tensor& bias, std::span<const int64_t> offsets,
                       Activation activation) {
  bool gated = activation == Activation::swiglu;
  check(offsets.size() >= 2 && offsets.front() == 0 && offsets.back() == h.rows(),
        "bias_activation: the offsets of {} groups don't cover the {} rows", offsets.size() - 1,
        h.rows());
  check(!gated || h.cols() % 2 == 0, "bias_activation: swiglu needs an even number of columns, {}",
        h.cols());
  int64_t groups = static_cast<int64_t>(offsets.size()) - 1;
  check(!bias || bias.numel() == groups * h.cols(),
        "bias_activation: bias {} for {} groups of {} columns", bias.shape(), groups, h.cols());
  std::vector<int64_t> ends(offsets.begin(), offsets.end());
  Shape shape = h.shape();
  if (gated) shape[-1] = h.cols() / 2;
  Tensor y = Tensor::empty(shape, h.dtype(), h.device());
  BiasActivationArgs args = forward_args(h, bias, ends, activation);
  args.y = y.raw();
  launch_on(h.device(), args);
  if (!tape_needs({&h, &bias})) return y;
  return record("bias_activation", y,
                [h = h.detach(), bias = bias.detach(), dh = Gradient(h), dbias = Gradient(bias),
                 ends = std::move(ends), activation](const Tensor& dy) {
                  auto to_h = dh.destination();
                  auto to_bias = dbias.destination();
                  launch_on(h.device(), BiasActivationBackwardArgs{
                                            .forward = forward_args(h, bias, ends, activation),
                                            .dy = dy.raw(),
                                            .dh = to_h.tensor.raw(),
                                            .dbias = to_bias.tensor.raw(),
                                            .dbias_type = to_bias.tensor.dtype(),
                                            .accumulate_dh = to_h.accumulate,
                                            .accumulate_dbias = to_bias.accumulate});
                });
}

}  // namespace adagate
