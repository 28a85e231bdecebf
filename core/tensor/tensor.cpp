#include "core/tensor/tensor.h"

#include "core/device/copy.h"
#include "core/tensor/tensor_kernels.h"

namespace adagate {

std::string Shape::str() const {
  std::string s = "[";
  for (int i = 0; i < rank_; ++i) s += fmt::format("{}{}", i ? ", " : "", dims_[i]);
  return s + "]";
}

namespace {

template <class T>
Tensor from_values(std::span<const T> values, const Shape& shape, DType dtype, Device device) {
  check(static_cast<int64_t>(values.size()) == shape.numel(), "{} values for a tensor of shape {}",
        values.size(), shape);
  Tensor t = Tensor::empty(shape, dtype, device);
  if (dtype == dtype_of<T>()) {
    copy_from_host(t.raw(), values.data(), t.bytes(), device);
    return t;
  }
  // Converted there, by a kernel: the bytes travel once, in the type that the host has.
  Tensor same = Tensor::empty(shape, dtype_of<T>(), device);
  copy_from_host(same.raw(), values.data(), same.bytes(), device);
  t.copy_from(same);
  return t;
}

}  // namespace

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  Tensor t;
  t.storage_ = Storage::allocate(static_cast<size_t>(shape.numel()) * size_of(dtype), device);
  t.shape_ = shape;
  t.dtype_ = dtype;
  return t;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  t.fill(0);
  return t;
}

Tensor Tensor::full(const Shape& shape, DType dtype, double value, Device device) {
  Tensor t = empty(shape, dtype, device);
  t.fill(value);
  return t;
}

Tensor Tensor::from(std::span<const float> values, const Shape& shape, DType dtype, Device device) {
  return from_values(values, shape, dtype, device);
}
Tensor Tensor::from(std::span<const double> values, const Shape& shape, DType dtype,
                    Device device) {
  return from_values(values, shape, dtype, device);
}
Tensor Tensor::from(std::span<const int32_t> values, const Shape& shape, Device device) {
  return from_values(values, shape, DType::i32, device);
}
Tensor Tensor::from(std::span<const int64_t> values, const Shape& shape, Device device) {
  return from_values(values, shape, DType::i64, device);
}

Tensor Tensor::from(std::span<const uint8_t> values, const Shape& shape, Device device) {
  return from_values(values, shape, DType::u8, device);
}

Tensor Tensor::from_storage(std::shared_ptr<Storage> storage, size_t byte_offset,
                            const Shape& shape, DType dtype) {
  size_t end = byte_offset + static_cast<size_t>(shape.numel()) * size_of(dtype);
  check(end <= storage->bytes(), "a tensor of shape {} at byte {} passes the end of {} bytes",
        shape, byte_offset, storage->bytes());
  Tensor t;
  t.storage_ = std::move(storage);
  t.offset_ = byte_offset;
  t.shape_ = shape;
  t.dtype_ = dtype;
  return t;
}

Tensor Tensor::slice(int64_t begin, int64_t end) const {
  check(shape_.rank() > 0 && 0 <= begin && begin <= end && end <= shape_[0],
        "slice [{}, {}) of a tensor of shape {}", begin, end, shape_);
  // A view of another shape is another value to the tape: it begins without a slot.
  Tensor t = detach();
  int64_t stride = shape_[0] ? numel() / shape_[0] : 0;
  t.offset_ += static_cast<size_t>(begin * stride) * size_of(dtype_);
  t.shape_[0] = end - begin;
  return t;
}

Tensor Tensor::reshape(const Shape& shape) const {
  check(shape.numel() == numel(), "can't reshape {} to {}", shape_, shape);
  Tensor t = *this;
  t.shape_ = shape;
  return t;
}

Tensor Tensor::detach() const {
  Tensor t = *this;
  t.slot_.reset();
  return t;
}

Tensor Tensor::clone() const {
  Tensor t = empty_like(*this);
  t.copy_from(*this);
  return t;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  Tensor t = empty(shape_, dtype, device());
  t.copy_from(*this);
  return t;
}

Tensor Tensor::to(Device device) const {
  if (device == this->device()) return *this;
  Tensor t = empty(shape_, dtype_, device);
  t.copy_from(*this);
  return t;
}

void Tensor::copy_from(const Tensor& source) const {
  check(source.numel() == numel(), "copy of {} into {}", source.shape(), shape_);
  if (source.device() != device()) {
    // Converted where the source is; only bytes of one type travel between devices.
    Tensor same = source.to(dtype_);
    copy_between(raw(), device(), same.raw(), same.device(), bytes());
    return;
  }
  launch_on(device(), ConvertArgs{.to = raw(),
                                  .from = source.raw(),
                                  .n = numel(),
                                  .to_type = dtype_,
                                  .from_type = source.dtype_});
}

void Tensor::fill(double value) const {
  launch_on(device(), FillArgs{.out = raw(), .n = numel(), .value = value, .type = dtype_});
}

void Tensor::read(void* to, DType expected) const {
  check(dtype_ == expected, "tensor is {}, {} expected", name_of(dtype_), name_of(expected));
  copy_to_host(to, raw(), bytes(), device());
}

std::vector<float> Tensor::to_floats() const {
  return to(DType::f32).to_host<float>();
}

std::vector<double> Tensor::to_doubles() const {
  return to(DType::f64).to_host<double>();
}

Tensor empty_like(const Tensor& x) {
  return Tensor::empty(x.shape(), x.dtype(), x.device());
}

}  // namespace adagate
