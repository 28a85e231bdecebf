#include "core/tensor/tensor_kernels.h"

#include <algorithm>
#include <cstring>

#include "core/tensor/visit_any.h"

namespace adagate {
namespace {

size_t bytes_of(int64_t n, DType type) {
  return static_cast<size_t>(n) * size_of(type);
}

}  // namespace

void launch(CpuStream&, const FillArgs& a) {
  if (a.n == 0) return;
  if (a.value == 0) {
    std::memset(a.out, 0, bytes_of(a.n, a.type));
    return;
  }
  visit_any(a.type, [&](auto type) {
    using T = decltype(type);
    std::fill_n(static_cast<T*>(a.out), a.n, static_cast<T>(a.value));
  });
}

void launch(CpuStream&, const ConvertArgs& a) {
  if (a.n == 0) return;
  if (a.to_type == a.from_type) {
    std::memcpy(a.to, a.from, bytes_of(a.n, a.to_type));
    return;
  }
  visit_any(a.to_type, [&](auto to) {
    visit_any(a.from_type, [&](auto from) {
      convert(static_cast<decltype(to)*>(a.to), static_cast<const decltype(from)*>(a.from), a.n);
    });
  });
}

void launch(CpuStream&, const AccumulateArgs& args) {
  int64_t n = args.n;
  visit_floating(args.to_type, [&](auto to_type) {
    visit_floating(args.from_type, [&](auto from_type) {
      using To = decltype(to_type);
      auto* a = static_cast<To*>(args.to);
      const auto* b = static_cast<const decltype(from_type)*>(args.from);
#pragma omp parallel for simd schedule(static) if (n > (1 << 15))
      for (int64_t i = 0; i < n; ++i) {
        a[i] = To(static_cast<Compute<To>>(a[i]) + static_cast<Compute<To>>(b[i]));
      }
    });
  });
}

}  // namespace adagate
