#include "core/tensor/read_together.h"

namespace adagate {

std::vector<std::vector<double>> read_together(std::span<const Tensor> parts) {
  if (parts.empty()) return {};
  if (parts.size() == 1) return {parts[0].to_host<double>()};
  int64_t size = 0;
  for (const Tensor& part : parts) size += part.numel();
  Tensor all = Tensor::empty({size}, DType::f64, parts[0].device());
  int64_t at = 0;
  for (const Tensor& part : parts) {
    check(part.dtype() == DType::f64, "read together: a tensor of {}, f64 expected",
          name_of(part.dtype()));
    all.slice(at, at + part.numel()).copy_from(part);
    at += part.numel();
  }
  std::vector<double> values = all.to_host<double>();
  std::vector<std::vector<double>> result;
  auto from = values.cbegin();
  for (const Tensor& part : parts) {
    auto to = from + part.numel();
    result.emplace_back(from, to);
    from = to;
  }
  return result;
}

}  // namespace adagate
