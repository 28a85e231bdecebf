// A named tree of parameters. `forward` is typed and belongs to each layer; modules are not copied.
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

  // The same without the names, which cost strings.
  template <class F>
  void visit_parameters(F&& fn) const {
    for (auto& entry : entries_) {
      if (entry.parameter) fn(*entry.parameter);
      if (entry.module) entry.module->visit_parameters(fn);
    }
  }

 protected:
  void add(std::string name, Parameter& parameter) {
    entries_.push_back({std::move(name), &parameter, nullptr});
  }
  void add(std::string name, Module& module) {
    entries_.push_back({std::move(name), nullptr, &module});
  }

 private:
  struct Entry {
    std::string name;
    Parameter* parameter;
    Module* module;
  };
  std::vector<Entry> entries_;
};

}  // namespace adagate
