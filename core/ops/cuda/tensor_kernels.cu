// Constants, conversions and sums of whole arrays: kernels over elements at the speed of memory,
// up to 16 bytes of the narrower type a thread. Zeros and plain copies go to the runtime.
#include <algorithm>

#include "core/device/cuda/check.h"
#include "core/ops/cuda/each_element.h"
#include "core/tensor/tensor_kernels.h"
#include "core/tensor/visit_any.h"

namespace adagate {
namespace {

using namespace cuda;

template <class To, class From>
__device__ inline To converted(From x) {
  if constexpr (std::is_same_v<To, bfloat16>) {
    return bfloat16(static_cast<float>(x));
  } else if constexpr (std::is_same_v<From, bfloat16>) {
    return static_cast<To>(static_cast<float>(x));
  } else {
    return static_cast<To>(x);
  }
}

template <class T>
struct Constant {
  T* out;
  T value;

  template <int kWidth>
  __device__ void at(int64_t i) const {
    Pack<T, kWidth> pack;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) pack.at[k] = value;
    *reinterpret_cast<Pack<T, kWidth>*>(out + i) = pack;
  }
};

template <class To, class From>
struct Conversion {
  To* to;
  const From* from;

  template <int kWidth>
  __device__ void at(int64_t i) const {
    const auto in = *reinterpret_cast<const Pack<From, kWidth>*>(from + i);
    Pack<To, kWidth> out;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) out.at[k] = converted<To>(in.at[k]);
    *reinterpret_cast<Pack<To, kWidth>*>(to + i) = out;
  }
};

template <class To, class From>
struct Addition {
  To* to;
  const From* from;

  template <int kWidth>
  __device__ void at(int64_t i) const {
    using C = Compute<To>;
    C sum[kWidth], more[kWidth];
    load(sum, to + i);
    load(more, from + i);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sum[k] += more[k];
    store(to + i, sum);
  }
};

// Elements at a time for arrays of two types; 8 at most, which is 64 bytes of the widest type.
template <class A, class B>
constexpr int kWidthOf = std::min(8, std::max(kPack<A>, kPack<B>));

size_t bytes_of(int64_t n, DType type) {
  return static_cast<size_t>(n) * size_of(type);
}

}  // namespace

void launch(CudaStream& stream, const FillArgs& a) {
  if (a.n == 0) return;
  if (a.value == 0) {
    ADAGATE_CUDA_CHECK(cudaMemsetAsync(a.out, 0, bytes_of(a.n, a.type), stream.handle()));
    return;
  }
  visit_any(a.type, [&](auto type) {
    using T = decltype(type);
    const Constant<T> constant{static_cast<T*>(a.out), static_cast<T>(a.value)};
    for_each_element<kPack<T>>(stream, a.n, aligned(kPackBytes, a.out), constant);
  });
}

void launch(CudaStream& stream, const ConvertArgs& a) {
  if (a.n == 0) return;
  if (a.to_type == a.from_type) {
    ADAGATE_CUDA_CHECK(cudaMemcpyAsync(a.to, a.from, bytes_of(a.n, a.to_type),
                                       cudaMemcpyDeviceToDevice, stream.handle()));
    return;
  }
  visit_any(a.to_type, [&](auto to_type) {
    visit_any(a.from_type, [&](auto from_type) {
      using To = decltype(to_type);
      using From = decltype(from_type);
      if constexpr (!std::is_same_v<To, From>) {
        const Conversion<To, From> conversion{static_cast<To*>(a.to),
                                              static_cast<const From*>(a.from)};
        for_each_element<kWidthOf<To, From>>(stream, a.n, aligned(kPackBytes, a.to, a.from),
                                             conversion);
      }
    });
  });
}

void launch(CudaStream& stream, const AccumulateArgs& a) {
  visit_floating(a.to_type, [&](auto to_type) {
    visit_floating(a.from_type, [&](auto from_type) {
      using To = decltype(to_type);
      using From = decltype(from_type);
      const Addition<To, From> addition{static_cast<To*>(a.to), static_cast<const From*>(a.from)};
      for_each_element<kWidthOf<To, From>>(stream, a.n, aligned(kPackBytes, a.to, a.from),
                                           addition);
    });
  });
}

}  // namespace adagate
