// Reverse-mode differentiation by a list of nodes, replayed from the end. Ops record themselves
// while a Recording is in scope on the calling thread; there is no graph search.
//
// An op's forward ends like this (the lambda's captures are exactly what is kept for backward):
//
//   if (!tape_needs({&x, &gamma})) return y;
//   return record("rms_norm", y, [x = x.detach(), dx = Gradient(x), ...](const Tensor& dy) {
//     if (auto to = dx.destination()) launch_on(..., {.dx = to.tensor.raw(), .accumulate =
//     to.accumulate});
//   });
#pragma once

#include <functional>
#include <initializer_list>
#include <limits>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/tensor/tensor.h"

namespace adagate {

// Where a kernel writes a gradient: `accumulate` says += instead of =. Empty when none is wanted.
struct GradDestination {
  Tensor tensor;
  bool accumulate = false;
  explicit operator bool() const { return static_cast<bool>(tensor); }
};

// Gathers the gradient of one tensor. For an activation the buffer appears with the first
// contribution; for a parameter it is fixed (a piece of the flat gradient buffer, f32 or f64), and
// the first contribution of a step overwrites it, so nothing is filled with zeros first.
class GradSlot {
 public:
  GradSlot() = default;
  explicit GradSlot(Tensor fixed) : value_(std::move(fixed)), fixed_(true) {}

  // Buffer to write or add to; counts as filled from here on.
  GradDestination destination(const Shape& shape, DType dtype, Device device);
  // Adds `value`; the first contribution to an activation shares its buffer instead of copying.
  void add(const Tensor& value);
  bool filled() const { return filled_; }
  const Tensor& value() const { return value_; }
  void clear();  // forget the gradient; a fixed buffer stays
  Tensor take();

  // The number that the whole gradient is known to be because backward started here with it and
  // nothing was added; also after take(). NaN: not known.
  double seed() const { return seed_; }

 private:
  friend class Tape;
  Tensor value_;
  double seed_ = std::numeric_limits<double>::quiet_NaN();
  bool fixed_ = false;
  bool filled_ = false;
};

// What an op's backward keeps of an input to deliver its gradient: the slot, not the values.
class Gradient {
 public:
  Gradient() = default;
  explicit Gradient(const Tensor& x)
      : slot_(x.slot()), shape_(x.shape()), dtype_(x.dtype()), device_(x.device()) {}

  explicit operator bool() const { return slot_ != nullptr; }  // is one wanted?
  GradDestination destination() const {
    return slot_ ? slot_->destination(shape_, dtype_, device_) : GradDestination{};
  }
  void add(const Tensor& value) const {
    if (slot_) slot_->add(value.reshape(shape_));
  }

 private:
  std::shared_ptr<GradSlot> slot_;
  Shape shape_;
  DType dtype_ = DType::f32;
  Device device_;
};

class Tape {
 public:
  using Backward = std::function<void(std::span<const Tensor> dys)>;

  // Replays all nodes in reverse, freeing each (and what it kept) as it goes. `gradient` is that of
  // `root`; the first form fills it with `seed`.
  void backward(const Tensor& root, double seed = 1.0);
  void backward(const Tensor& root, const Tensor& gradient);
  // From several roots at once, each with gradient 1.
  void backward(std::span<const Tensor> roots);
  size_t size() const { return nodes_.size(); }
  void clear() { nodes_.clear(); }

  // The tape that records on this thread; null outside a Recording.
  static Tape* current();

 private:
  friend class Recording;
  friend class NoRecording;
  friend void record_node(std::string_view, std::vector<std::shared_ptr<GradSlot>>, bool, Backward);
  struct Node {
    std::string_view name;
    std::vector<std::shared_ptr<GradSlot>> outputs;
    bool always;  // runs even when no output has a gradient (markers, balance losses)
    Backward run;
  };
  void seed(const Tensor& root, double seed);
  void replay();

  std::vector<Node> nodes_;
};

// Ops on this thread record on `tape` while this is in scope.
class Recording {
 public:
  explicit Recording(Tape& tape);
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

 private:
  Tape* outer_;
};

// Ops on this thread don't record while this is in scope.
class NoRecording {
 public:
  NoRecording();
  ~NoRecording();
  NoRecording(const NoRecording&) = delete;
  NoRecording& operator=(const NoRecording&) = delete;

 private:
  Tape* outer_;
};

// True when a tape records and one of the tensors wants a gradient. Null and empty ones don't.
bool tape_needs(std::initializer_list<const Tensor*> inputs);

void record_node(std::string_view name, std::vector<std::shared_ptr<GradSlot>> outputs, bool always,
                 Tape::Backward run);

// Marks `y` as differentiable and pushes backward(dy). Returns y.
template <class F>
Tensor record(std::string_view name, Tensor y, F&& backward) {
  y.set_slot(std::make_shared<GradSlot>());
  record_node(name, {y.slot()}, false,
              [fn = std::forward<F>(backward)](std::span<const Tensor> dys) { fn(dys[0]); });
  return y;
}

// The same for several outputs: backward(dys), where a dy is empty if nothing flowed into it. With
// `always`, backward runs even if all are empty.
template <class F>
void record_many(std::string_view name, std::initializer_list<Tensor*> outputs, F&& backward,
                 bool always = false) {
  std::vector<std::shared_ptr<GradSlot>> slots;
  for (Tensor* y : outputs) {
    y->set_slot(std::make_shared<GradSlot>());
    slots.push_back(y->slot());
  }
  record_node(name, std::move(slots), always, std::forward<F>(backward));
}

// Calls fn() when the backward pass comes by: everything recorded later has been replayed then,
// e.g. all uses of a block's parameters when the marker stands before the block.
void on_backward(std::function<void()> fn);

// y = fn(x) that keeps only x: fn runs again in backward. fn must be deterministic (addressed
// randomness) and issue the same collectives on all ranks.
Tensor recompute(const Tensor& x, std::function<Tensor(const Tensor&)> fn);

// True while recompute() re-runs a segment: statistics must not be counted a second time.
bool recomputing();

}  // namespace adagate
