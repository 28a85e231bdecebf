// What ADAGATE_LAUNCH becomes: the kernel and copies of its arguments go into the stream's queue.
#pragma once

#include <cstring>
#include <cuda_runtime_api.h>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>

#include "tests/cuda/emulator/engine.h"
#include "tests/cuda/emulator/limits.h"

namespace adagate::emulator {

// Sizes of a launch: a number or a dim3. Numbers that don't fit become 0, which no GPU takes.
struct Extent {
  dim3 value;
  Extent(dim3 extent) : value(extent) {}
  template <class T>
  requires std::is_integral_v<T> Extent(T blocks)
      : value(std::in_range<unsigned>(blocks) ? static_cast<unsigned>(blocks) : 0u) {}
};

// Stops when an argument of a kernel points to memory of the host that a GPU could not reach.
void check_pointer(const char* kernel, int argument, const void* pointer);
// The same for whatever in a struct looks like an address.
void check_words(const char* kernel, int argument, const void* value, size_t bytes);

template <class T>
void check_argument(const char* kernel, int argument, T value) {
  if constexpr (std::is_pointer_v<T>) {
    check_pointer(kernel, argument, reinterpret_cast<const void*>(value));
  } else if constexpr (std::is_trivially_copyable_v<T> && std::is_class_v<T> &&
                       sizeof(T) >= sizeof(void*)) {
    __builtin_clear_padding(&value);  // which is known of trivial types alone
    check_words(kernel, argument, &value, sizeof value);
  }
}

template <class... Parameters>
const void* kernel_address(void (*function)(Parameters...)) {
  return reinterpret_cast<const void*>(function);
}

// `function` is the kernel's address, by which it may have been allowed more shared memory.
void enqueue_kernel(cudaStream_t stream, Launch launch, const void* function);

template <class... Parameters>
void launch(const char* kernel, void (*function)(Parameters...), Extent grid, Extent block,
            size_t shared_bytes, cudaStream_t stream,
            std::type_identity_t<Parameters>... arguments) {
  static_assert((std::is_trivially_destructible_v<Parameters> && ...));
  static_assert((sizeof(Parameters) + ... + 0) <= kMostParameterBytes);
  int position = 0;
  (check_argument(kernel, ++position, arguments), ...);
  std::tuple<Parameters...> kept(arguments...);
  enqueue_kernel(stream,
                 {kernel, grid.value, block.value, shared_bytes, 0,
                  [function, kept] { std::apply(function, kept); }},
                 kernel_address(function));
}

}  // namespace adagate::emulator
