// Weights written to one file by any layout, and read back on another.
#include <filesystem>

#include "core/io/safetensors.h"
#include "core/nn/parameter_store.h"
#include "models/weights.h"
#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"
#include "tests/support/toy_module.h"

using namespace adagate;

namespace {

struct ToyWeights {
  Toy model;
  ParameterStore store;

  explicit ToyWeights(const Mesh& mesh) : model(mesh), store(model, StoreOptions{}) {}

  // Every element gets a value of its own, by its global place.
  static float expected(const Parameter& p, int64_t i) {
    int64_t row = p.numel() / p.spec().shape[0];
    return static_cast<float>(1000 * static_cast<int64_t>(p.name().size()) +
                              p.spec().shard.begin * row + i);
  }
  void fill() {
    for (Parameter* p : store.parameters())
      for (int64_t i = 0; i < p->numel(); ++i) p->master().data<float>()[i] = expected(*p, i);
  }
  bool matches() const {
    for (Parameter* p : store.parameters())
      for (int64_t i = 0; i < p->numel(); ++i)
        if (p->master().data<float>()[i] != expected(*p, i)) return false;
    return true;
  }
};

std::vector<NamedTensor> tensors(Shape dense) {
  return {{"dense", Tensor::zeros(dense, DType::f32)},
          {"vector", Tensor::zeros({7}, DType::f32)},
          {"experts", Tensor::zeros({kToyExperts, 2, 3}, DType::f32)}};
}

}  // namespace

TEST_CASE("weights: exported to one file and read back on other layouts") {
  TempFolder folder;
  auto file = folder.path() / "weights.safetensors";
  run_ranks(4, [&](std::shared_ptr<Communicator> world) {
    Mesh mesh = make_mesh(world, 2);
    ToyWeights toy(mesh);
    toy.fill();
    export_weights(file, toy.store.parameters(), mesh);
  });
  for (auto [ranks, expert] : {std::pair{1, 1}, {2, 2}, {4, 4}})
    run_ranks(ranks, [&, expert = expert](std::shared_ptr<Communicator> world) {
      ToyWeights toy(make_mesh(world, expert));
      load_weights(file, toy.store.parameters());
      check(toy.matches(), "rank {}: other weights than those of the file", world->rank());
    });
}

TEST_CASE("weights: file and model have the same names and shapes") {
  TempFolder folder;
  auto file = folder.path() / "weights.safetensors";
  ToyWeights toy(make_self_mesh());
  auto error_with = [&](const std::vector<NamedTensor>& stored) {
    write_safetensors(file, stored);
    try {
      load_weights(file, toy.store.parameters());
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  auto more = tensors({5, 3}), fewer = more;
  more.push_back({"stranger", Tensor::zeros({1}, DType::f32)});
  fewer.pop_back();
  CHECK(error_with(tensors({5, 3})).empty());
  CHECK_THAT(error_with(more), Catch::Contains("weights.safetensors has the tensor stranger"));
  CHECK_THAT(error_with(fewer), Catch::Contains("weights.safetensors has no tensor experts"));
  CHECK_THAT(error_with(tensors({3, 5})), Catch::Contains("dense has shape"));
}
