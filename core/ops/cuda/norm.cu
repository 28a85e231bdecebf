// Norms: a warp or a block a row (norm_rows.h). Forward reads x once, for the mean, then for the
// variance around it, then for y. Backward goes by slabs of rows (column_sums.h): each row gives dx
// and its shares of dgamma and dbeta, which a thread adds up in registers over all of its rows.
#include "core/ops/cuda/column_sums.h"
#include "core/ops/cuda/norm_rows.h"
#include "core/ops/norm.h"

namespace adagate {
namespace {

using namespace cuda;

constexpr int64_t kSlabsWanted = 512;

template <class Form>
__global__ void __launch_bounds__(Form::kBlock) norm_rows(NormArgs a) {
  using T = typename Form::Element;
  using C = typename Form::C;
  constexpr int kWidth = Form::kColumns;
  ADAGATE_SHARED(C, shared, kWarp);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * Form::kRowsAtOnce + Form::row_in_block();
  if (row >= a.rows) return;
  const int cols = static_cast<int>(a.cols);
  const T* from = static_cast<const T*>(a.x) + row * a.cols;
  typename Form::Values x;
  Form::hold(x, from, cols);
  C mean = 0;
  if (a.mean) {
    C sum = 0;
    Form::for_each(cols, [&](int i, int column) {
      Form::fetch(x, from, i, column);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sum += x[i][k];
    });
    mean = Form::sum(sum, shared) / static_cast<C>(cols);
    if (Form::thread() == 0) static_cast<C*>(a.mean)[row] = mean;
  }
  C square = 0;
  Form::for_each(cols, [&](int i, int column) {
    Form::fetch(x, from, i, column);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) square += (x[i][k] - mean) * (x[i][k] - mean);
  });
  square = Form::sum(square, shared) / static_cast<C>(cols);
  const C rstd = C(1) / std::sqrt(square + static_cast<C>(a.epsilon));
  if (Form::thread() == 0) static_cast<C*>(a.rstd)[row] = rstd;
  Form::for_each(cols, [&](int i, int column) {
    Form::fetch(x, from, i, column);
    C gamma[kWidth], beta[kWidth] = {}, y[kWidth];
    load(gamma, static_cast<const C*>(a.gamma) + column);
    if (a.beta) load(beta, static_cast<const C*>(a.beta) + column);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) y[k] = (x[i][k] - mean) * rstd * gamma[k] + beta[k];
    store(static_cast<T*>(a.y) + row * a.cols + column, y);
  });
}

// A thread's sums over the rows of a slab: in registers where rows are held, else in the slab's
// partial row.
template <class Form>
struct WeightSums {
  using C = typename Form::C;
  static constexpr int kWidth = Form::kColumns, kSlots = Form::kSlots;

  C at[2 * kSlots][kWidth] = {};  // dgamma, dbeta
  C* partial;                     // or null: not wanted
  int64_t stride;                 // between the two in a partial row

  __device__ WeightSums(C* partial_row, int64_t between) : partial(partial_row), stride(between) {}

  __device__ void add(int slot, int column, const C (&gamma)[kWidth], const C (&beta)[kWidth],
                      bool first_row) {
    if (!partial) return;
    if constexpr (!Form::kHeld) {
      if (!first_row) load(at[0], partial + column);
      if (!first_row) load(at[1], partial + stride + column);
    }
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const bool add_up = Form::kHeld || !first_row;
      at[slot][k] = (add_up ? at[slot][k] : C(0)) + gamma[k];
      at[kSlots + slot][k] = (add_up ? at[kSlots + slot][k] : C(0)) + beta[k];
    }
    if constexpr (!Form::kHeld) write(slot, column);
  }

  __device__ void finish(int cols) {
    if constexpr (Form::kHeld) {
      bool writes = partial != nullptr;
      if constexpr (Form::kRowsAtOnce > 1) writes = partial && add_up_warps(at);
      if (writes) Form::for_each(cols, [&](int i, int column) { write(i, column); });
    }
  }

 private:
  __device__ void write(int slot, int column) {
    store(partial + column, at[slot]);
    store(partial + stride + column, at[kSlots + slot]);
  }
};

// dx = rstd * (g - mean(g) - xhat * mean(g * xhat)) with g = dy * gamma; the RMS form has no
// mean(g).
template <class Form>
__global__ void __launch_bounds__(Form::kBlock)
    norm_backward_rows(NormBackwardArgs a, Slabs slabs, typename Form::C* partial, int64_t stride) {
  using T = typename Form::Element;
  using C = typename Form::C;
  constexpr int kWidth = Form::kColumns;
  ADAGATE_SHARED(C, shared, kWarp);
  const int cols = static_cast<int>(a.cols);
  const Slab slab = slab_at(slabs, blockIdx.x);
  WeightSums<Form> weights(partial ? partial + blockIdx.x * 2 * stride : nullptr, stride);
  for (int64_t row = slab.begin + Form::row_in_block(); row < slab.end; row += Form::kRowsAtOnce) {
    const T* from = static_cast<const T*>(a.x) + row * a.cols;
    const T* dfrom = static_cast<const T*>(a.dy) + row * a.cols;
    typename Form::Values x, dy;
    Form::hold(x, from, cols);
    Form::hold(dy, dfrom, cols);
    const C rstd = static_cast<const C*>(a.rstd)[row];
    const C mean = a.mean ? static_cast<const C*>(a.mean)[row] : C(0);
    C sum_g = 0, sum_gx = 0;
    Form::for_each(cols, [&](int i, int column) {
      Form::fetch(x, from, i, column);
      Form::fetch(dy, dfrom, i, column);
      C gamma[kWidth], share[kWidth];
      load(gamma, static_cast<const C*>(a.gamma) + column);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        const C xhat = (x[i][k] - mean) * rstd, g = dy[i][k] * gamma[k];
        sum_g += g;
        sum_gx += g * xhat;
        share[k] = dy[i][k] * xhat;
      }
      weights.add(i, column, share, dy[i], row == slab.begin);
    });
    if (!a.dx) continue;
    const C mean_gx = Form::sum(sum_gx, shared) / static_cast<C>(cols);
    const C mean_g = a.mean ? Form::sum(sum_g, shared) / static_cast<C>(cols) : C(0);
    T* to = static_cast<T*>(a.dx) + row * a.cols;
    Form::for_each(cols, [&](int i, int column) {
      Form::fetch(x, from, i, column);
      Form::fetch(dy, dfrom, i, column);
      C gamma[kWidth], dx[kWidth], before[kWidth] = {};
      load(gamma, static_cast<const C*>(a.gamma) + column);
      if (a.accumulate_dx) load(before, to + column);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        const C xhat = (x[i][k] - mean) * rstd;
        dx[k] = rstd * (dy[i][k] * gamma[k] - mean_g - xhat * mean_gx) + before[k];
      }
      store(to + column, dx);
    });
  }
  weights.finish(cols);
}

template <class T>
void forward(CudaStream& stream, const NormArgs& a) {
  const bool packed = packs(a.cols, sizeof(T), a.x, a.y, a.gamma, a.beta);
  visit_row_form<T>(packed, a.cols, [&](auto form) {
    using Form = decltype(form);
    const int64_t blocks = (a.rows + Form::kRowsAtOnce - 1) / Form::kRowsAtOnce;
    ADAGATE_LAUNCH(norm_rows<Form>, static_cast<unsigned>(blocks), Form::kBlock, 0, stream, a);
  });
}

template <class T>
void backward(CudaStream& stream, const NormBackwardArgs& a) {
  using C = Compute<T>;
  const Slabs slabs = cut_rows(a.rows, kSlabsWanted);
  const bool weights = a.dgamma || a.dbeta;
  const int64_t stride = partial_stride(a.cols);
  Scratch<C> partial(stream, weights ? std::max<int64_t>(1, slabs.most) * 2 * stride : 1);
  if (a.rows > 0) {
    const bool packed = packs(a.cols, sizeof(T), a.x, a.dy, a.dx, a.gamma);
    visit_row_form<T>(packed, a.cols, [&](auto form) {
      using Form = decltype(form);
      ADAGATE_LAUNCH(norm_backward_rows<Form>, static_cast<unsigned>(slabs.most), Form::kBlock, 0,
                     stream, a, slabs, weights ? partial.data() : nullptr, stride);
    });
  }
  finish_column_sums(stream, slabs, partial.data(), 2 * stride, a.cols,
                     {a.dgamma, a.dgamma_dtype, a.accumulate_dgamma, 0},
                     {a.dbeta, a.dbeta_dtype, a.accumulate_dbeta, stride});
}

}  // namespace

void launch(CudaStream& stream, const NormArgs& a) {
  if (a.rows == 0 || a.cols == 0) return;
  visit_floating(a.dtype, [&](auto type) { forward<decltype(type)>(stream, a); });
}

void launch(CudaStream& stream, const NormBackwardArgs& a) {
  if (a.cols == 0) return;
  visit_floating(a.dtype, [&](auto type) { backward<decltype(type)>(stream, a); });
}

}  // namespace adagate
