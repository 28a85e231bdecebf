// A named, trainable tensor. Its bytes live in the flat buffers of a ParameterStore.
#pragma once

#include <memory>
#include <string>

#include "core/autograd/tape.h"
#include "core/nn/parameter_group.h"
#include "core/nn/state.h"
#include "core/tensor/tensor.h"

namespace adagate {

struct Init {
  enum class Kind : uint8_t { zeros, ones, normal } kind = Kind::zeros;
  double stddev = 0.0;
  static Init zeros() { return {}; }
  static Init ones() { return {Kind::ones}; }
  static Init normal(double stddev) { return {Kind::normal, stddev}; }
};

struct ParameterSpec {
  Shape shape;  // on this rank
  Init init = {};
  bool decay = true;            // weight decay (matrices and embeddings)
  bool full_precision = false;  // computed with in master precision (gate, norms)
  ParameterGroup group = ParameterGroup::dense;
  Shard shard = {};  // a part of the whole: of experts, their own; so far of dimension 0 alone

  bool is_whole() const { return shard.dim == Shard::kWhole; }
  Shape global_shape() const { return whole_shape(shape, shard); }
  // View of this rank's entries of a tensor of the global shape.
  Tensor part_of(const Tensor& whole) const {
    check(whole.shape() == global_shape(), "a tensor of shape {} for a parameter of shape {}",
          whole.shape(), global_shape());
    return is_whole() ? whole : whole.slice(shard.begin, shard.begin + shape[0]);
  }
};

class Parameter {
 public:
  explicit Parameter(ParameterSpec spec) : spec_(std::move(spec)) {}
  Parameter(const Parameter&) = delete;
  Parameter& operator=(const Parameter&) = delete;

  const ParameterSpec& spec() const { return spec_; }
  const std::string& name() const { return name_; }  // global, e.g. "blocks.3.moe.gate.weight"
  int64_t numel() const { return spec_.shape.numel(); }

  // The value ops compute with (compute precision), wired to the gradient.
  const Tensor& tensor() const { return value_; }
  const Tensor& master() const { return master_; }  // f32 or f64, what the optimizer updates
  const Tensor& grad() const { return grad_; }      // same type as master
  int64_t offset() const { return offset_; }  // elements from the start of its group's buffers

 private:
  friend class ParameterStore;
  ParameterSpec spec_;
  std::string name_;
  Tensor value_, master_, grad_;
  int64_t offset_ = 0;
};

}  // namespace adagate
