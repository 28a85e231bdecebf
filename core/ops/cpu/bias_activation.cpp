// Forward: rows are independent; each element is read once and written once.
// Backward: a task is 32 rows of one group; it reads h and dy, writes dh, and sums its share of the
// bias gradient into a row of its own. Those rows are then added in order of the tasks, which are
// the same for any number of threads.
#include "core/ops/bias_activation.h"

#include <algorithm>
#include <vector>

#include "core/device/cpu_buffer.h"

namespace adagate {
namespace {

struct RowTask {
  int64_t group, begin, end;
};

std::vector<RowTask> make_tasks(const BiasActivationArgs& p, int64_t rows_per_task) {
  std::vector<RowTask> tasks;
  for (int64_t g = 0; g < p.groups; ++g) {
    int64_t first = p.offsets ? p.offsets[g] : 0, last = p.offsets ? p.offsets[g + 1] : p.rows;
    for (int64_t r = first; r < last; r += rows_per_task) {
      tasks.push_back({g, r, std::min(r + rows_per_task, last)});
    }
  }
  return tasks;
}

constexpr int64_t kParallelElements = 1 << 13;
constexpr int64_t kColumns = 256;  // a chunk of bias gradient sums that stays in L1
constexpr int64_t kRowsPerTask = 32;

// bias + first column of the chunk, or zeros.
template <class C, class B>
void load_bias(const B* bias, int64_t offset, int64_t width, C* out) {
  for (int64_t c = 0; c < width; ++c) out[c] = bias ? static_cast<C>(bias[offset + c]) : C(0);
}

template <class F, class T, class B>
void forward_rows(const BiasActivationArgs& p, const RowTask& task) {
  using C = Compute<T>;
  const T* h = static_cast<const T*>(p.h);
  T* y = static_cast<T*>(p.y);
  const B* bias = static_cast<const B*>(p.bias);
  for (int64_t first = 0; first < p.cols; first += kColumns) {
    int64_t width = std::min(kColumns, p.cols - first);
    C b[kColumns];
    load_bias(bias, task.group * p.cols + first, width, b);
    for (int64_t r = task.begin; r < task.end; ++r) {
      const T* in = h + r * p.cols + first;
      T* out = y + r * p.cols + first;
#pragma omp simd
      for (int64_t c = 0; c < width; ++c) {
        out[c] = static_cast<T>(F::value(static_cast<C>(in[c]) + b[c]));
      }
    }
  }
}

template <class F, class T, class B>
void forward_gated(const BiasActivationArgs& p, const RowTask& task) {
  using C = Compute<T>;
  int64_t half = p.cols / 2;
  const T* h = static_cast<const T*>(p.h);
  T* y = static_cast<T*>(p.y);
  const B* bias = static_cast<const B*>(p.bias);
  for (int64_t first = 0; first < half; first += kColumns) {
    int64_t width = std::min(kColumns, half - first);
    C gate_bias[kColumns], up_bias[kColumns];
    load_bias(bias, task.group * p.cols + first, width, gate_bias);
    load_bias(bias, task.group * p.cols + half + first, width, up_bias);
    for (int64_t r = task.begin; r < task.end; ++r) {
      const T* gate = h + r * p.cols + first;
      const T* up = gate + half;
      T* out = y + r * half + first;
#pragma omp simd
      for (int64_t c = 0; c < width; ++c) {
        out[c] = static_cast<T>(F::value(static_cast<C>(gate[c]) + gate_bias[c]) *
                                (static_cast<C>(up[c]) + up_bias[c]));
      }
    }
  }
}

template <class T, class C>
inline void put(T* to, C value, bool accumulate) {
  *to = static_cast<T>(accumulate ? static_cast<C>(*to) + value : value);
}

template <bool kAccumulate, class F, class T, class B>
void backward_rows(const BiasActivationBackwardArgs& q, const RowTask& task, Compute<T>* sums) {
  using C = Compute<T>;
  const BiasActivationArgs& p = q.forward;
  const T* h = static_cast<const T*>(p.h);
  const T* dy = static_cast<const T*>(q.dy);
  T* dh = static_cast<T*>(q.dh);
  const B* bias = static_cast<const B*>(p.bias);
  for (int64_t first = 0; first < p.cols; first += kColumns) {
    int64_t width = std::min(kColumns, p.cols - first);
    C b[kColumns], sum[kColumns] = {};
    T unwanted[kColumns] = {};  // a condition in the loop would keep narrow machines from SIMD
    load_bias(bias, task.group * p.cols + first, width, b);
    for (int64_t r = task.begin; r < task.end; ++r) {
      int64_t at = r * p.cols + first;
      T* out = dh ? dh + at : unwanted;
#pragma omp simd
      for (int64_t c = 0; c < width; ++c) {
        C d = F::derivative(static_cast<C>(h[at + c]) + b[c]) * static_cast<C>(dy[at + c]);
        sum[c] += d;
        put(out + c, d, kAccumulate);
      }
    }
    if (sums) std::copy(sum, sum + width, sums + first);
  }
}

template <bool kAccumulate, class F, class T, class B>
void backward_gated(const BiasActivationBackwardArgs& q, const RowTask& task, Compute<T>* sums) {
  using C = Compute<T>;
  const BiasActivationArgs& p = q.forward;
  int64_t half = p.cols / 2;
  const B* bias = static_cast<const B*>(p.bias);
  for (int64_t first = 0; first < half; first += kColumns) {
    int64_t width = std::min(kColumns, half - first);
    C gate_bias[kColumns], up_bias[kColumns], gate_sum[kColumns] = {}, up_sum[kColumns] = {};
    load_bias(bias, task.group * p.cols + first, width, gate_bias);
    load_bias(bias, task.group * p.cols + half + first, width, up_bias);
    for (int64_t r = task.begin; r < task.end; ++r) {
      const T* gate = static_cast<const T*>(p.h) + r * p.cols + first;
      const T* up = gate + half;
      const T* dy = static_cast<const T*>(q.dy) + r * half + first;
      T* dgate = q.dh ? static_cast<T*>(q.dh) + r * p.cols + first : nullptr;
#pragma omp simd
      for (int64_t c = 0; c < width; ++c) {
        C g = static_cast<C>(gate[c]) + gate_bias[c], d = static_cast<C>(dy[c]);
        C from_gate = d * (static_cast<C>(up[c]) + up_bias[c]) * F::derivative(g);
        C from_up = d * F::value(g);
        gate_sum[c] += from_gate;
        up_sum[c] += from_up;
        if (dgate) {
          put(dgate + c, from_gate, kAccumulate);
          put(dgate + half + c, from_up, kAccumulate);
        }
      }
    }
    if (sums) {
      std::copy(gate_sum, gate_sum + width, sums + first);
      std::copy(up_sum, up_sum + width, sums + half + first);
    }
  }
}

// dbias[g] (+)= the sums of g's tasks, in order. Groups without rows get zero.
template <class C, class Out>
void add_up(const BiasActivationBackwardArgs& q, const std::vector<RowTask>& tasks, const C* sums) {
  int64_t cols = q.forward.cols;
  size_t next = 0;
  for (int64_t g = 0; g < q.forward.groups; ++g) {
    Out* out = static_cast<Out*>(q.dbias) + g * cols;
    size_t first = next;
    while (next < tasks.size() && tasks[next].group == g) ++next;
#pragma omp parallel for schedule(static) if (cols * static_cast <int64_t>(next - first) > \
                                              (1 << 15))
    for (int64_t chunk = 0; chunk < cols; chunk += kColumns) {
      int64_t width = std::min(kColumns, cols - chunk);
      C total[kColumns] = {};
      for (size_t t = first; t < next; ++t) {
        const C* row = sums + static_cast<int64_t>(t) * cols + chunk;
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) total[c] += row[c];
      }
      for (int64_t c = 0; c < width; ++c) put(out + chunk + c, total[c], q.accumulate_dbias);
    }
  }
}

template <class F, class T, class B>
void backward(const BiasActivationBackwardArgs& q, const std::vector<RowTask>& tasks,
              Compute<T>* sums) {
  bool gated = q.forward.activation == Activation::swiglu;
  auto count = static_cast<int64_t>(tasks.size());
#pragma omp parallel for schedule(static) if (q.forward.rows * q.forward.cols > kParallelElements)
  for (int64_t t = 0; t < count; ++t) {
    const RowTask& task = tasks[static_cast<size_t>(t)];
    auto* sum = sums ? sums + t * q.forward.cols : nullptr;
    if (gated) {
      q.accumulate_dh ? backward_gated<true, F, T, B>(q, task, sum)
                      : backward_gated<false, F, T, B>(q, task, sum);
    } else {
      q.accumulate_dh ? backward_rows<true, F, T, B>(q, task, sum)
                      : backward_rows<false, F, T, B>(q, task, sum);
    }
  }
}

// f(functor, element type, bias type)
template <class F>
void visit_types(const BiasActivationArgs& p, F&& f) {
  visit_activation(p.activation, [&](auto functor) {
    visit_floating(p.type, [&](auto t) {
      using T = decltype(t);
      if (!p.bias || p.bias_type == p.type) return f(functor, t, t);
      // A bias kept in full precision next to bf16 activations.
      check(p.bias_type == DType::f32, "bias_activation: {} bias on {} values",
            name_of(p.bias_type), name_of(p.type));
      if constexpr (std::is_same_v<T, bfloat16>) f(functor, t, float{});
    });
  });
}

}  // namespace

void launch(CpuStream&, const BiasActivationArgs& p) {
  auto tasks = make_tasks(p, kRowsPerTask);
  auto count = static_cast<int64_t>(tasks.size());
  visit_types(p, [&](auto functor, auto t, auto b) {
    using F = decltype(functor);
    using T = decltype(t);
    using B = decltype(b);
#pragma omp parallel for schedule(static) if (p.rows * p.cols > kParallelElements)
    for (int64_t i = 0; i < count; ++i) {
      const RowTask& task = tasks[static_cast<size_t>(i)];
      if (p.activation == Activation::swiglu) {
        forward_gated<F, T, B>(p, task);
      } else {
        forward_rows<F, T, B>(p, task);
      }
    }
  });
}

void launch(CpuStream&, const BiasActivationBackwardArgs& q) {
  const BiasActivationArgs& p = q.forward;
  auto tasks = make_tasks(p, kRowsPerTask);
  visit_types(p, [&](auto functor, auto t, auto b) {
    using T = decltype(t);
    using C = Compute<T>;
    CpuBuffer sums(q.dbias ? tasks.size() * static_cast<size_t>(p.cols) * sizeof(C) : 0);
    backward<decltype(functor), T, decltype(b)>(q, tasks, sums.as<C>());
    if (!q.dbias) return;
    visit_floating(q.dbias_type,
                   [&](auto out) { add_up<C, decltype(out)>(q, tasks, sums.as<C>()); });
  });
}

}  // namespace adagate
