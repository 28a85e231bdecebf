// A named tree of parameters and state. `forward` is typed and belongs to each layer; modules are
// not copied.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/nn/parameter.h"

namespace adagate {

class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  // All parameters in order of registration, with names relative to this module.
  void for_each_parameter(const std::function<void(const std::string&, Parameter&)>& fn,
                          const std::string& prefix = "") {
    for (auto& entry : entries_) {
      std::string name = prefix.empty() ? entry.name : prefix + "." + entry.name;
      if (entry.parameter) fn(name, *entry.parameter);
      if (entry.module) entry.module->for_each_parameter(fn, name);
    }
  }

  // All state that is no parameter, named alike.
  void for_each_state(const std::function<void(const std::string&, Tensor&, const Shard&)>& fn,
                      const std::string& prefix = "") {
    for (auto& entry : entries_) {
      std::string name = prefix.empty() ? entry.name : prefix + "." + entry.name;
      if (entry.state) fn(name, *entry.state, entry.shard);
      if (entry.module) entry.module->for_each_state(fn, name);
    }
  }

  // The parameters without their names, which cost strings.
  template <class F>
  void visit_parameters(F&& fn) const {
    for (auto& entry : entries_) {
      if (entry.parameter) fn(*entry.parameter);
      if (entry.module) entry.module->visit_parameters(fn);
    }
  }

 protected:
  void add(std::string name, Parameter& parameter) {
    entries_.push_back({.name = std::move(name), .parameter = &parameter});
  }
  void add(std::string name, Module& module) {
    entries_.push_back({.name = std::move(name), .module = &module});
  }
  // A tensor that no gradient changes and that a run which goes on needs as it was: checkpoints
  // hold it, and fill it in place. `shard`: which part of it this rank has (experts of its own).
  // Copies of the same part must be the same bits on all ranks that have it.
  void add_state(std::string name, Tensor& tensor, const Shard& shard = {}) {
    entries_.push_back({.name = std::move(name), .state = &tensor, .shard = shard});
  }

 private:
  struct Entry {
    std::string name;
    Parameter* parameter = nullptr;
    Module* module = nullptr;
    Tensor* state = nullptr;
    Shard shard = {};
  };
  std::vector<Entry> entries_;
};

}  // namespace adagate
