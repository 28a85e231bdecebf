// Forward: rows are independent; each element is read once and written once.
// Backward: a task is 32 rows of one group; it reads h and dy, writes dh, and sums its share of the
// bias gradient into a row of its own. Those rows are then added in order of the tasks, which are
// the same for any number of threads. Vector functions make the activations: about 20 instructions
// for a vector, so that large arrays go at the speed of memory.
#include "core/ops/bias_activation.h"

#include <algorithm>
#include <vector>

#include "core/device/cpu_buffer.h"
#include "core/ops/cpu/vector_functions.h"

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

// The biases of all groups in the type computed in; zeros where there are none.
template <class C>
class Biases {
 public:
  explicit Biases(const BiasActivationArgs& p)
      : stride_(p.bias ? p.cols : 0),
        converted_(p.bias && p.bias_type == dtype_of<C>() ? 0 : size_in_bytes(p)),
        first_(converted_.as<C>()) {
    const int64_t n = std::max(stride_ * p.groups, p.cols);
    if (!p.bias) {
      std::fill_n(converted_.as<C>(), n, C(0));
    } else if (p.bias_type == dtype_of<C>()) {
      first_ = static_cast<const C*>(p.bias);
    } else {
      visit_floating(p.bias_type, [&](auto type) {
        const auto* from = static_cast<const decltype(type)*>(p.bias);
        std::transform(from, from + n, converted_.as<C>(), [](auto x) { return C(x); });
      });
    }
  }
  const C* of(int64_t group) const { return first_ + group * stride_; }

 private:
  static size_t size_in_bytes(const BiasActivationArgs& p) {
    return static_cast<size_t>((p.bias ? p.groups : 1) * p.cols) * sizeof(C);
  }
  int64_t stride_;
  CpuBuffer converted_;
  const C* first_;
};

template <class F, class T>
void forward_rows(const BiasActivationArgs& p, const RowTask& task, const Compute<T>* bias) {
  for (int64_t r = task.begin; r < task.end; ++r) {
    const T* h = static_cast<const T*>(p.h) + r * p.cols;
    T* y = static_cast<T*>(p.y) + r * p.cols;
    for_each_vector<Compute<T>>(p.cols, [=](int64_t c, auto lanes) {
      lanes.store(y + c, F::value(lanes.load(h + c) + lanes.load(bias + c)));
    });
  }
}

template <class F, class T>
void forward_gated(const BiasActivationArgs& p, const RowTask& task, const Compute<T>* bias) {
  const int64_t half = p.cols / 2;
  for (int64_t r = task.begin; r < task.end; ++r) {
    const T *gate = static_cast<const T*>(p.h) + r * p.cols, *up = gate + half;
    T* y = static_cast<T*>(p.y) + r * half;
    for_each_vector<Compute<T>>(half, [=](int64_t c, auto lanes) {
      const auto value = F::value(lanes.load(gate + c) + lanes.load(bias + c));
      lanes.store(y + c, value * (lanes.load(up + c) + lanes.load(bias + half + c)));
    });
  }
}

// to (+)= value, unless `to` is null; `at` counts elements.
template <class Lanes, class T, class V>
inline void put(Lanes lanes, T* to, int64_t at, V value, bool accumulate) {
  if (!to) return;
  if (accumulate) value += lanes.load(to + at);
  lanes.store(to + at, value);
}

// `sums` [cols] or null: += the task's share of the bias gradient.
template <class F, class T>
void backward_rows(const BiasActivationBackwardArgs& q, const RowTask& task, const Compute<T>* bias,
                   Compute<T>* sums) {
  const BiasActivationArgs& p = q.forward;
  for (int64_t r = task.begin; r < task.end; ++r) {
    const T* h = static_cast<const T*>(p.h) + r * p.cols;
    const T* dy = static_cast<const T*>(q.dy) + r * p.cols;
    T* dh = q.dh ? static_cast<T*>(q.dh) + r * p.cols : nullptr;
    for_each_vector<Compute<T>>(p.cols, [=, &q](int64_t c, auto lanes) {
      const auto x = lanes.load(h + c) + lanes.load(bias + c);
      const auto d = F::derivative(x) * lanes.load(dy + c);
      put(lanes, sums, c, d, true);
      put(lanes, dh, c, d, q.accumulate_dh);
    });
  }
}

template <class F, class T>
void backward_gated(const BiasActivationBackwardArgs& q, const RowTask& task,
                    const Compute<T>* bias, Compute<T>* sums) {
  const BiasActivationArgs& p = q.forward;
  const int64_t half = p.cols / 2;
  for (int64_t r = task.begin; r < task.end; ++r) {
    const T *gate = static_cast<const T*>(p.h) + r * p.cols, *up = gate + half;
    const T* dy = static_cast<const T*>(q.dy) + r * half;
    T* dh = q.dh ? static_cast<T*>(q.dh) + r * p.cols : nullptr;
    for_each_vector<Compute<T>>(half, [=, &q](int64_t c, auto lanes) {
      const auto g = lanes.load(gate + c) + lanes.load(bias + c);
      const auto u = lanes.load(up + c) + lanes.load(bias + half + c);
      const auto d = lanes.load(dy + c);
      const auto from_gate = d * u * F::derivative(g), from_up = d * F::value(g);
      put(lanes, sums, c, from_gate, true);
      put(lanes, sums, half + c, from_up, true);
      put(lanes, dh, c, from_gate, q.accumulate_dh);
      put(lanes, dh, half + c, from_up, q.accumulate_dh);
    });
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
      for (int64_t c = 0; c < width; ++c) {
        const C before = q.accumulate_dbias ? static_cast<C>(out[chunk + c]) : C(0);
        out[chunk + c] = Out(before + total[c]);
      }
    }
  }
}

// f(functor, element type)
template <class F>
void visit_types(const BiasActivationArgs& p, F&& f) {
  check(!p.bias || p.bias_type == p.type || (p.type == DType::bf16 && p.bias_type == DType::f32),
        "bias_activation: {} bias on {} values", name_of(p.bias_type), name_of(p.type));
  visit_activation(p.activation, [&](auto functor) {
    visit_floating(p.type, [&](auto type) { f(functor, type); });
  });
}

template <class F, class T>
void forward(const BiasActivationArgs& p) {
  const auto tasks = make_tasks(p, kRowsPerTask);
  const auto count = static_cast<int64_t>(tasks.size());
  const Biases<Compute<T>> biases(p);
#pragma omp parallel for schedule(static) if (p.rows * p.cols > kParallelElements)
  for (int64_t i = 0; i < count; ++i) {
    const RowTask& task = tasks[static_cast<size_t>(i)];
    if (p.activation == Activation::swiglu) {
      forward_gated<F, T>(p, task, biases.of(task.group));
    } else {
      forward_rows<F, T>(p, task, biases.of(task.group));
    }
  }
}

template <class F, class T>
void backward(const BiasActivationBackwardArgs& q) {
  using C = Compute<T>;
  const BiasActivationArgs& p = q.forward;
  const auto tasks = make_tasks(p, kRowsPerTask);
  const auto count = static_cast<int64_t>(tasks.size());
  const Biases<C> biases(p);
  const CpuBuffer buffer(q.dbias ? static_cast<size_t>(count * p.cols) * sizeof(C) : 0);
#pragma omp parallel for schedule(static) if (p.rows * p.cols > kParallelElements)
  for (int64_t i = 0; i < count; ++i) {
    const RowTask& task = tasks[static_cast<size_t>(i)];
    C* sums = q.dbias ? buffer.as<C>() + i * p.cols : nullptr;
    if (sums) std::fill_n(sums, p.cols, C(0));
    if (p.activation == Activation::swiglu) {
      backward_gated<F, T>(q, task, biases.of(task.group), sums);
    } else {
      backward_rows<F, T>(q, task, biases.of(task.group), sums);
    }
  }
  if (!q.dbias) return;
  visit_floating(q.dbias_type,
                 [&](auto out) { add_up<C, decltype(out)>(q, tasks, buffer.as<C>()); });
}

}  // namespace

void launch(CpuStream&, const BiasActivationArgs& p) {
  visit_types(p, [&](auto f, auto type) { forward<decltype(f), decltype(type)>(p); });
}

void launch(CpuStream&, const BiasActivationBackwardArgs& q) {
  visit_types(q.forward, [&](auto f, auto type) { backward<decltype(f), decltype(type)>(q); });
}

}  // namespace adagate
