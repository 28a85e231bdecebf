#include "core/autograd/tape.h"

#include <utility>

#include "core/tensor/accumulate.h"

namespace adagate {
namespace {

// Ranks may be threads of one process: each records on a tape of its own.
thread_local Tape* t_current = nullptr;
thread_local bool t_recomputing = false;

}  // namespace

// A kernel will write something else into the buffer: it is no longer the constant of a seed.
GradDestination GradSlot::destination(const Shape& shape, DType dtype, Device device) {
  seed_ = std::numeric_limits<double>::quiet_NaN();
  if (!filled_) {
    if (!fixed_) value_ = Tensor::empty(shape, dtype, device);
    filled_ = true;
    return {value_, false};
  }
  // The buffer may still be another slot's too (add() shares); then it must not be written.
  if (!fixed_ && !value_.unique()) value_ = value_.clone();
  return {value_, true};
}

void GradSlot::add(const Tensor& value) {
  seed_ = std::numeric_limits<double>::quiet_NaN();
  // Most tensors have one reader: its gradient is taken over as it is. A second one copies first,
  // in destination().
  if (!filled_ && !fixed_) {
    value_ = value.detach();
    filled_ = true;
    return;
  }
  auto [to, accumulate] = destination(value.shape(), value.dtype(), value.device());
  if (accumulate) {
    accumulate_into(to, value);
  } else {
    to.copy_from(value);
  }
}

void GradSlot::clear() {
  if (!fixed_) value_ = Tensor();
  filled_ = false;
}

Tensor GradSlot::take() {
  Tensor value = value_;
  clear();
  return value;
}

Tape* Tape::current() {
  return t_current;
}

void Tape::backward(const Tensor& root, double seed) {
  this->seed(root, seed);
  replay();
}

void Tape::backward(const Tensor& root, const Tensor& gradient) {
  check(root.requires_grad(), "backward: the root was not recorded on a tape");
  root.slot()->add(gradient);
  replay();
}

void Tape::backward(std::span<const Tensor> roots) {
  for (const Tensor& root : roots) seed(root, 1.0);
  replay();
}

void Tape::seed(const Tensor& root, double seed) {
  check(root.requires_grad(), "backward: the root was not recorded on a tape");
  GradSlot& slot = *root.slot();
  bool only = !slot.filled();
  slot.add(Tensor::full(root.shape(), root.dtype(), seed, root.device()));
  if (only) slot.seed_ = seed;
}

void Tape::replay() {
  NoRecording off;
  std::vector<Tensor> dys;
  while (!nodes_.empty()) {
    // The node leaves the tape before it runs: the activations that it keeps are free as soon as it
    // is done, so that memory falls while backward goes on.
    Node node = std::move(nodes_.back());
    nodes_.pop_back();
    dys.clear();
    bool any = node.always;
    for (auto& slot : node.outputs) {
      // Taken out of its slot: what no other node holds is freed when this one is done.
      any = any || slot->filled();
      dys.push_back(slot->filled() ? slot->take() : Tensor());
    }
    if (any) node.run(dys);
  }
}

Recording::Recording(Tape& tape) : outer_(std::exchange(t_current, &tape)) {}
Recording::~Recording() {
  t_current = outer_;
}
NoRecording::NoRecording() : outer_(std::exchange(t_current, nullptr)) {}
NoRecording::~NoRecording() {
  t_current = outer_;
}

bool tape_needs(std::initializer_list<const Tensor*> inputs) {
  if (!t_current) return false;
  for (const Tensor* x : inputs)
    if (x && x->requires_grad()) return true;
  return false;
}

void record_node(std::string_view name, std::vector<std::shared_ptr<GradSlot>> outputs, bool always,
                 Tape::Backward run) {
  check(t_current != nullptr, "{}: recorded outside a Recording", name);
  t_current->nodes_.push_back({name, std::move(outputs), always, std::move(run)});
}

void on_backward(std::function<void()> fn) {
  if (!t_current) return;
  record_node("on_backward", {}, true, [fn = std::move(fn)](std::span<const Tensor>) { fn(); });
}

Tensor recompute(const Tensor& x, std::function<Tensor(const Tensor&)> fn) {
  if (!t_current) return fn(x);
  Tensor y;
  {
    NoRecording off;
    y = fn(x.detach());
  }
  // The inner tape ends in the slot of x, as one without recomputation does.
  return record("recompute", y, [x, fn = std::move(fn)](const Tensor& dy) {
    Tape inner;
    Tensor again;
    {
      // Segments may be nested: the flag goes back to what it was.
      bool outer = std::exchange(t_recomputing, true);
      Recording on(inner);
      again = fn(x);
      t_recomputing = outer;
    }
    inner.backward(again, dy);
  });
}

bool recomputing() {
  return t_recomputing;
}

}  // namespace adagate
