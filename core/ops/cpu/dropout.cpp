// Dropout with bias and residual on the CPU. Work per thread: whole rows; bytes per element: x,
// residual, y once each (3 sizes), backward dy and dx (2). One Philox call keys a row, the draw of
// an element is a 32-bit mix that vectorises. dbias goes by fixed blocks of rows.
#include "core/ops/dropout.h"

#include "core/base/threads.h"
#include "core/ops/cpu/row_blocks.h"
#include "core/ops/cpu/vector_functions.h"

namespace adagate {
namespace {

// The factors of one row; without dropout they are 1.
template <class C>
class RowFactors {
 public:
  RowFactors(const DropoutMask& mask, const Rng& rng, const int64_t* addresses, int64_t row)
      : mask_(mask), key_(addresses ? rng.row_key(static_cast<uint64_t>(addresses[row])) : 0) {
    for (int i = 0; i < kLanes<uint32_t>; ++i)
      steps_[i] = static_cast<uint32_t>(i) * Rng::kRowStride;
  }
  // value * factor, for the columns from c.
  Vec<C> times(int64_t c, Vec<C> value) const {
    const auto column = static_cast<uint32_t>(c);
    if constexpr (std::is_same_v<C, float>) {
      return value * dropout_factors(mask_, steps_ + (key_ + column * Rng::kRowStride));
    } else {
      for (int i = 0; i < kLanes<C>; ++i)
        value[i] *= static_cast<C>(mask_.factor(key_, column + static_cast<uint32_t>(i)));
      return value;
    }
  }

 private:
  DropoutMask mask_;
  uint32_t key_;
  Vec<uint32_t> steps_;
};

template <class T, bool kDrop>
void forward_row(const DropoutArgs& a, int64_t row) {
  using C = Compute<T>;
  const RowFactors<C> factors(a.mask, a.rng, a.addresses, row);
  const T* x = static_cast<const T*>(a.x) + row * a.cols;
  T* y = static_cast<T*>(a.y) + row * a.cols;
  const T* bias = static_cast<const T*>(a.bias);
  const T* residual = a.residual ? static_cast<const T*>(a.residual) + row * a.cols : nullptr;
  for_each_vector<C>(a.cols, [=](int64_t c, auto lanes) {
    auto value = lanes.load(x + c);
    if (bias) value += lanes.load(bias + c);
    if (kDrop) value = factors.times(c, value);
    if (residual) value += lanes.load(residual + c);
    lanes.store(y + c, value);
  });
}

template <class T, bool kDrop>
void backward_row(const DropoutBackwardArgs& a, int64_t row, Compute<T>* dbias) {
  using C = Compute<T>;
  const RowFactors<C> factors(a.mask, a.rng, a.addresses, row);
  const T* dy = static_cast<const T*>(a.dy) + row * a.cols;
  T* dx = a.dx ? static_cast<T*>(a.dx) + row * a.cols : nullptr;
  const bool accumulate = a.accumulate_dx;
  for_each_vector<C>(a.cols, [=](int64_t c, auto lanes) {
    auto value = lanes.load(dy + c);
    if (kDrop) value = factors.times(c, value);
    if (dbias) lanes.store(dbias + c, lanes.load(dbias + c) + value);
    if (!dx) return;
    if (accumulate) value += lanes.load(dx + c);
    lanes.store(dx + c, value);
  });
}

template <class T>
void backward(const DropoutBackwardArgs& a) {
  using C = Compute<T>;
  const int64_t blocks = row_blocks(a.rows);
  Tensor partial;
  if (a.dbias) partial = Tensor::empty({blocks, a.cols}, dtype_of<C>());
  C* sums = partial.data<C>();
#pragma omp parallel for schedule(static) num_threads(threads_for(a.rows* a.cols))
  for (int64_t b = 0; b < blocks; ++b) {
    C* dbias = sums ? sums + b * a.cols : nullptr;
    if (dbias) std::fill_n(dbias, a.cols, C(0));
    const int64_t end = std::min(a.rows, (b + 1) * kRowBlock);
    for (int64_t row = b * kRowBlock; row < end; ++row) {
      a.addresses ? backward_row<T, true>(a, row, dbias) : backward_row<T, false>(a, row, dbias);
    }
  }
  finish_column_sums(sums, blocks, a.cols, a.cols, a.dbias, a.dbias_dtype, a.accumulate_dbias);
}

}  // namespace

void launch(CpuStream&, const DropoutArgs& a) {
  visit_floating(a.dtype, [&](auto type) {
#pragma omp parallel for schedule(static) num_threads(threads_for(a.rows* a.cols))
    for (int64_t row = 0; row < a.rows; ++row) {
      using T = decltype(type);
      a.addresses ? forward_row<T, true>(a, row) : forward_row<T, false>(a, row);
    }
  });
}

void launch(CpuStream&, const DropoutBackwardArgs& a) {
  visit_floating(a.dtype, [&](auto type) { backward<decltype(type)>(a); });
}

}  // namespace adagate
