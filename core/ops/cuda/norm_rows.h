// How the threads of the norms' kernels share a row, and which form serves which length: a warp a
// row up to 1,024 columns, up to 512 threads a row up to 8,192. These keep the row in registers, so
// that memory is read once. Longer rows, and rows above 512 columns that can't be moved in packs,
// are read again for each pass over them.
#pragma once

#include "core/ops/cuda/elements.h"
#include "core/ops/cuda/reduce.h"

namespace adagate::cuda {

// kThreads threads a row, which move kWidth columns at a time and hold kPacks times as many each;
// kPacks 0: none.
template <class T, int kWidth, int kThreads, int kPacks>
struct RowForm {
  using Element = T;
  using C = Compute<T>;
  static constexpr int kColumns = kWidth;
  static constexpr bool kHeld = kPacks > 0;
  static constexpr int kSlots = kHeld ? kPacks : 1;
  static constexpr int kBlock = kThreads < 128 ? 128 : kThreads;
  static constexpr int kRowsAtOnce = kBlock / kThreads;
  using Values = C[kSlots][kWidth];

  __device__ static int row_in_block() { return static_cast<int>(threadIdx.x) / kThreads; }
  __device__ static int thread() { return static_cast<int>(threadIdx.x) % kThreads; }

  // Calls f(slot, column) for this thread's packs of a row.
  template <class F>
  __device__ static void for_each(int cols, F f) {
    if constexpr (kHeld) {
#pragma unroll
      for (int i = 0; i < kPacks; ++i) {
        const int column = (i * kThreads + thread()) * kWidth;
        if (column < cols) f(i, column);
      }
    } else {
      for (int column = thread() * kWidth; column < cols; column += kThreads * kWidth) f(0, column);
    }
  }

  // Brings a held row into registers, or one pack of a row that isn't.
  __device__ static void hold(Values& values, const T* row, int cols) {
    if constexpr (kHeld) for_each(cols, [&](int i, int column) { load(values[i], row + column); });
  }
  __device__ static void fetch(Values& values, const T* row, int slot, int column) {
    if constexpr (!kHeld) load(values[slot], row + column);
  }

  // Over the threads of a row, which all get it. `shared`: see block_sum().
  __device__ static C sum(C value, C* shared) {
    if constexpr (kThreads == kWarp) {
      return warp_sum(value);
    } else {
      return block_sum(value, shared);
    }
  }
};

// f(form) with the form for rows of `cols` columns.
template <class T, class F>
void visit_row_form(bool packed, int64_t cols, F&& f) {
  if constexpr (!std::is_same_v<T, double>) {
    constexpr int kWidth = kPack<T>;
    if (packed && cols <= 256) return f(RowForm<T, kWidth, kWarp, 8 / kWidth>{});
    if (packed && cols <= 1024) return f(RowForm<T, kWidth, kWarp, 32 / kWidth>{});
    if (packed && cols <= 2048) return f(RowForm<T, kWidth, 128, 16 / kWidth>{});
    if (packed && cols <= 4096) return f(RowForm<T, kWidth, 256, 16 / kWidth>{});
    if (packed && cols <= 8192) return f(RowForm<T, kWidth, 512, 16 / kWidth>{});
  }
  if (cols <= 512) return f(RowForm<T, 1, kWarp, 16>{});
  f(RowForm<T, 1, 256, 0>{});
}

}  // namespace adagate::cuda
