#include "core/tensor/tensor.h"

#include <algorithm>
#include <cstring>

namespace adagate {

std::string Shape::str() const {
  std::string s = "[";
  for (int i = 0; i < rank_; ++i) s += fmt::format("{}{}", i ? ", " : "", dims_[i]);
  return s + "]";
}

namespace {

template <class To, class From>
void convert(To* to, const From* from, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > (1 << 16))
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_same_v<To, bfloat16>) {
      to[i] = bfloat16(static_cast<float>(from[i]));
    } else if constexpr (std::is_same_v<From, bfloat16>) {
      to[i] = static_cast<To>(static_cast<float>(from[i]));
    } else {
      to[i] = static_cast<To>(from[i]);
    }
  }
}

template <class F>
decltype(auto) visit_any(DType t, F&& f) {
  switch (t) {
    case DType::i32:
      return f(int32_t{});
    case DType::i64:
      return f(int64_t{});
    case DType::u8:
      return f(uint8_t{});
    default:
      return visit_floating(t, f);
  }
}

template <class T>
Tensor from_values(std::span<const T> values, const Shape& shape, DType dtype) {
  check(static_cast<int64_t>(values.size()) == shape.numel(), "{} values for a tensor of shape {}",
        values.size(), shape);
  Tensor t = Tensor::empty(shape, dtype);
  visit_any(dtype, [&](auto to) { convert(t.data<decltype(to)>(), values.data(), shape.numel()); });
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

Tensor Tensor::full(const Shape& shape, DType dtype, double value) {
  Tensor t = empty(shape, dtype);
  t.fill(value);
  return t;
}

Tensor Tensor::from(std::span<const float> values, const Shape& shape, DType dtype) {
  return from_values(values, shape, dtype);
}
Tensor Tensor::from(std::span<const double> values, const Shape& shape, DType dtype) {
  return from_values(values, shape, dtype);
}
Tensor Tensor::from(std::span<const int32_t> values, const Shape& shape) {
  return from_values(values, shape, DType::i32);
}
Tensor Tensor::from(std::span<const int64_t> values, const Shape& shape) {
  return from_values(values, shape, DType::i64);
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
  if (bytes()) std::memcpy(t.raw(), raw(), bytes());
  return t;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  Tensor t = empty(shape_, dtype, device());
  t.copy_from(*this);
  return t;
}

void Tensor::copy_from(const Tensor& source) const {
  check(source.numel() == numel(), "copy of {} into {}", source.shape(), shape_);
  if (source.dtype_ == dtype_) {
    if (bytes()) std::memcpy(raw(), source.raw(), bytes());
    return;
  }
  visit_any(dtype_, [&](auto to) {
    visit_any(source.dtype_, [&](auto from) {
      convert(static_cast<decltype(to)*>(raw()), static_cast<const decltype(from)*>(source.raw()),
              numel());
    });
  });
}

void Tensor::fill(double value) const {
  if (value == 0) {
    if (bytes()) std::memset(raw(), 0, bytes());
    return;
  }
  visit_any(dtype_, [&](auto type) {
    using T = decltype(type);
    std::fill_n(static_cast<T*>(raw()), numel(), static_cast<T>(value));
  });
}

std::vector<float> Tensor::to_floats() const {
  Tensor t = to(DType::f32);
  return {t.data<float>(), t.data<float>() + numel()};
}

std::vector<double> Tensor::to_doubles() const {
  Tensor t = to(DType::f64);
  return {t.data<double>(), t.data<double>() + numel()};
}

Tensor empty_like(const Tensor& x) {
  return Tensor::empty(x.shape(), x.dtype(), x.device());
}

}  // namespace adagate
