// Moments that ranks own in parts: saved on one layout, read on every other, in parts or whole.
#include <vector>

#include "core/base/rng.h"
#include "core/optim/adamw.h"
#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"
#include "train/checkpoint.h"

namespace adagate {
namespace {

struct Layout {
  const char* name;
  int ranks, expert_parallel;
  bool in_parts;
};

const Layout kLayouts[] = {{"one", 1, 1, false},           {"one-in-parts", 1, 1, true},
                           {"two", 2, 2, false},           {"two-in-parts", 2, 2, true},
                           {"three-in-parts", 3, 1, true}, {"four-in-parts", 4, 2, true}};

struct Toy : Module {
  Parameter matrix{{.shape = {5, 7}}};
  Parameter gain{{.shape = {9}, .decay = false}};
  Parameter experts;
  explicit Toy(const Mesh& mesh) : experts(spec(8 / mesh.expert_parallel(), mesh)) {
    add("matrix", matrix);
    add("gain", gain);
    add("experts", experts);
  }
  static ParameterSpec spec(int64_t here, const Mesh& mesh) {
    return {.shape = {here, 3, 2},
            .group = ParameterGroup::expert,
            .shard = {.dim = 0, .begin = mesh.expert->rank() * here, .global = 8}};
  }
};

// Cut without regard to parameters.
OwnedRanges owned_here(ParameterStore& store, const Mesh& mesh) {
  OwnedRanges owned;
  for (ParameterGroup g : kAllGroups) {
    const Communicator& copies = *mesh.group(g).copies;
    int64_t n = store.group(g).size(), rank = copies.rank(), ranks = copies.size();
    owned[g].push_back({n * rank / ranks, n * (rank + 1) / ranks});
  }
  return owned;
}

// Of element i of this rank's part: told by the state's name and the element's global place.
std::vector<double> values_of(const StateTensor& state) {
  int64_t row = 1;
  for (int d = 1; state.shard.dim == 0 && d < state.shape.rank(); ++d) row *= state.shape[d];
  std::vector<double> values;
  for (int64_t i = 0; i < state.tensor.numel(); ++i)
    values.push_back(static_cast<double>(hash_name(state.name) % 997 * 1000) +
                     static_cast<double>(state.shard.begin * row + i));
  return values;
}

// Calls fn(states of the optimizer, mesh) on every rank of the layout.
template <class F>
void on_layout(const Layout& layout, F&& fn) {
  run_ranks(layout.ranks, [&](std::shared_ptr<Communicator> world) {
    Mesh mesh = make_mesh(world, layout.expert_parallel);
    Toy toy(mesh);
    ParameterStore store(toy, {});
    AdamW adamw = layout.in_parts ? AdamW(store, {}, owned_here(store, mesh)) : AdamW(store, {});
    fn(adamw.states(), mesh);
  });
}

}  // namespace

TEST_CASE("owned moments: saved on one layout, read on every other") {
  TempFolder folder;
  for (const Layout& layout : kLayouts)
    on_layout(layout, [&](const std::vector<StateTensor>& states, const Mesh& mesh) {
      for (const StateTensor& state : states)
        state.tensor.copy_from(Tensor::from(values_of(state), state.tensor.shape()));
      save_checkpoint(folder.path(layout.name), states, {.step = 1}, "", mesh, 0);
    });
  for (const Layout& from : kLayouts)
    for (const Layout& to : kLayouts) {
      CAPTURE(from.name, to.name);
      on_layout(to, [&](const std::vector<StateTensor>& states, const Mesh& mesh) {
        load_checkpoint(std::filesystem::path(folder.path(from.name)) / "step-00000001", states,
                        mesh);
        for (const StateTensor& state : states)
          check(state.tensor.to_doubles() == values_of(state), "{} is not what was saved",
                state.name);
      });
    }
}

}  // namespace adagate
