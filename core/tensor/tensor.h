// The tensor handle: shared storage + offset + shape, contiguous and row-major only. Copying a
// handle shares the data. Matrices are [rows, cols]: `rows()` is the product of all dimensions but
// the last.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/base/dtype.h"
#include "core/device/storage.h"
#include "core/tensor/shape.h"

namespace adagate {

class GradSlot;

class Tensor {
 public:
  Tensor() = default;  // the empty handle: stands for "none", e.g. no bias

  // Contents undefined.
  static Tensor empty(const Shape& shape, DType dtype, Device device = {});
  static Tensor zeros(const Shape& shape, DType dtype, Device device = {});
  static Tensor full(const Shape& shape, DType dtype, double value, Device device = {});
  // Copies `values`, which are the host's, converting to `dtype`.
  static Tensor from(std::span<const float> values, const Shape& shape, DType dtype = DType::f32,
                     Device device = {});
  static Tensor from(std::span<const double> values, const Shape& shape, DType dtype = DType::f64,
                     Device device = {});
  static Tensor from(std::span<const int32_t> values, const Shape& shape, Device device = {});
  static Tensor from(std::span<const int64_t> values, const Shape& shape, Device device = {});
  static Tensor from(std::span<const uint8_t> values, const Shape& shape, Device device = {});
  static Tensor from_storage(std::shared_ptr<Storage> storage, size_t byte_offset,
                             const Shape& shape, DType dtype);

  explicit operator bool() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int64_t dim(int i) const { return shape_[i]; }
  int64_t numel() const { return shape_.numel(); }
  int64_t cols() const { return shape_.rank() ? shape_[-1] : 1; }
  int64_t rows() const { return cols() ? numel() / cols() : leading(); }
  size_t bytes() const { return static_cast<size_t>(numel()) * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_ ? storage_->device() : Device{}; }

  // Memory of the device: for a kernel's arguments. Only what lives on the CPU, and isn't written
  // by a kernel that may run elsewhere, may be read through it.
  void* raw() const { return storage_ ? static_cast<char*>(storage_->data()) + offset_ : nullptr; }
  // Throws Error when T is not the element type.
  template <class T>
  T* data() const {
    check(!storage_ || dtype_of<T>() == dtype_, "tensor is {}, {} expected", name_of(dtype_),
          name_of(dtype_of<T>()));
    return static_cast<T*>(raw());
  }

  // View of entries [begin, end) of the first dimension. Not differentiable.
  Tensor slice(int64_t begin, int64_t end) const;
  // Same elements under another shape; shares the gradient slot, so it is differentiable for free.
  Tensor reshape(const Shape& shape) const;
  // The same data without its gradient slot.
  Tensor detach() const;

  Tensor clone() const;            // own copy, not differentiable
  Tensor to(DType dtype) const;    // converted copy (the same handle when nothing changes)
  Tensor to(Device device) const;  // copy elsewhere (the same handle when it lives there)
  void copy_from(const Tensor& source) const;  // same numel; converts; from any device
  void fill(double value) const;
  // Copies for the host, which waits for the device; counted (core/device/copy.h). The first throws
  // Error when T is not the element type, the others convert.
  template <class T>
  std::vector<T> to_host() const {
    std::vector<T> values(static_cast<size_t>(numel()));
    read(values.data(), dtype_of<T>());
    return values;
  }
  std::vector<float> to_floats() const;
  std::vector<double> to_doubles() const;

  // True when nobody else holds this storage: its bytes may be overwritten.
  bool unique() const { return storage_.use_count() == 1; }

  // Gradients; see core/autograd/tape.h.
  bool requires_grad() const { return slot_ != nullptr; }
  const std::shared_ptr<GradSlot>& slot() const { return slot_; }
  void set_slot(std::shared_ptr<GradSlot> slot) { slot_ = std::move(slot); }

 private:
  void read(void* to, DType expected) const;
  int64_t leading() const {
    int64_t n = 1;
    for (int i = 0; i + 1 < shape_.rank(); ++i) n *= shape_[i];
    return n;
  }

  std::shared_ptr<Storage> storage_;
  std::shared_ptr<GradSlot> slot_;
  size_t offset_ = 0;
  Shape shape_;
  DType dtype_ = DType::f32;
};

// New tensor like x in shape, type and device.
Tensor empty_like(const Tensor& x);

}  // namespace adagate
