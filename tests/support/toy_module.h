// A module of each kind of parameter, spread over a mesh: for what keeps and cuts parameters.
#pragma once

#include "core/nn/module.h"
#include "parallel/mesh.h"

namespace adagate {

constexpr int64_t kToyExperts = 8;

// A dense matrix, a dense vector and the experts of this rank.
struct Toy : Module {
  Parameter dense, vector, experts;
  explicit Toy(const Mesh& mesh, int64_t width = 3)
      : dense({.shape = {5, width}}),
        vector({.shape = {7}}),
        experts({.shape = {kToyExperts / mesh.expert_parallel(), 2, 3},
                 .group = ParameterGroup::expert,
                 .shard = {.dim = 0,
                           .begin = mesh.expert->rank() * (kToyExperts / mesh.expert_parallel()),
                           .global = kToyExperts}}) {
    add("dense", dense);
    add("vector", vector);
    add("experts", experts);
  }
};

}  // namespace adagate
