// State of every type, held whole or in parts: saved on one layout, read on every other.
#include <numeric>

#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"
#include "tests/support/message_of.h"
#include "tests/support/steered_policy.h"
#include "tests/support/temp_folder.h"
#include "tests/train/tiny_run.h"
#include "train/checkpoint.h"
#include "train/run_state.h"

namespace adagate {
namespace {

// How ranks share a tensor.
enum class Held { whole, rows, columns, elements, uneven_elements };

struct Case {
  const char* name;
  DType dtype;
  Shape shape;
};

// Extents of the first two dimensions divide by four ranks.
const Case kCases[] = {{"state/f32", DType::f32, {4, 8, 3}},    {"state/bf16", DType::bf16, {4, 4}},
                       {"state/f64", DType::f64, {8, 4}},       {"state/i32", DType::i32, {4, 4}},
                       {"state/i64", DType::i64, {8, 4, 1, 2}}, {"state/u8", DType::u8, {4, 4}}};

// Elements [begin, end) of n, one of `ranks` parts. Uneven: the first rank has none of them, as one
// that owns no moments.
std::pair<int64_t, int64_t> range_of(int64_t n, int rank, int ranks, bool uneven) {
  if (uneven && ranks > 1) {
    if (rank == 0) return {0, 0};
    --rank;
    --ranks;
  }
  return {n * rank / ranks, n * (rank + 1) / ranks};
}

StateTensor part_of(const Case& c, Held held, int rank, int ranks) {
  if (held == Held::whole) return state_tensor(c.name, Tensor::zeros(c.shape, c.dtype));
  if (held == Held::rows || held == Held::columns) {
    int dim = held == Held::columns;
    Shape part = c.shape;
    part[dim] /= ranks;
    return state_tensor(c.name, Tensor::zeros(part, c.dtype),
                        {.dim = dim, .begin = rank * part[dim], .global = c.shape[dim]});
  }
  auto [begin, end] = range_of(c.shape.numel(), rank, ranks, held == Held::uneven_elements);
  return state_elements(c.name, Tensor::zeros({end - begin}, c.dtype), c.shape, begin);
}

// Global places of a part's elements, in its own order.
std::vector<double> places_of(const Case& c, const StateTensor& state) {
  std::vector<double> all(static_cast<size_t>(c.shape.numel()));
  std::iota(all.begin(), all.end(), 0.0);
  if (state.shard.dim == Shard::kWhole) return all;
  std::vector<double> places;
  int64_t inner = 1;
  if (state.shard.dim >= 0)
    for (int d = state.shard.dim + 1; d < c.shape.rank(); ++d) inner *= c.shape[d];
  for (double place : all) {
    int64_t at = static_cast<int64_t>(place) / inner % state.shard.global;
    if (at >= state.shard.begin && at < state.shard.begin + state.count()) places.push_back(place);
  }
  return places;
}

// u8 and bf16 have room for what a place gives.
std::vector<double> values_of(const Case& c, const StateTensor& state) {
  std::vector<double> values = places_of(c, state);
  for (double& value : values) value += static_cast<double>(c.shape.rank());
  return values;
}

void save_on(int ranks, Held held, const std::filesystem::path& directory) {
  run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
    Mesh mesh = make_mesh(world, 1);
    std::vector<StateTensor> states;
    for (const Case& c : kCases) {
      StateTensor& state = states.emplace_back(part_of(c, held, world->rank(), ranks));
      state.tensor.copy_from(Tensor::from(values_of(c, state), state.tensor.shape()));
    }
    save_checkpoint(directory, states, {.step = 1}, "", mesh, 0);
  });
}

void expect_on(int ranks, Held held, const std::filesystem::path& checkpoint) {
  run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
    std::vector<StateTensor> states;
    for (const Case& c : kCases) states.push_back(part_of(c, held, world->rank(), ranks));
    load_checkpoint(checkpoint, states, make_mesh(world, 1));
    for (size_t i = 0; i < states.size(); ++i)
      check(states[i].tensor.to_doubles() == values_of(kCases[i], states[i]),
            "rank {} of {}: {} is not what was saved", world->rank(), ranks, states[i].name);
  });
}

// Some state of its own, whole and in parts as experts are.
struct Inner : Module {
  Tensor count = Tensor::zeros({3}, DType::i64);
  Inner() { add_state("count", count); }
};
struct Outer : Module {
  Parameter weight{{.shape = {2}}};
  Inner inner;
  Tensor bias;
  explicit Outer(const Mesh& mesh, int64_t experts = 8) {
    int64_t here = experts / mesh.expert_parallel();
    bias = Tensor::zeros({here}, DType::f32);
    add("weight", weight);
    add("inner", inner);
    add_state("bias", bias, {.dim = 0, .begin = mesh.expert->rank() * here, .global = experts});
  }
};

constexpr const char* kStep1 = "step-00000001";

// Calls fn(model, states) on every one of `ranks` ranks that share the experts.
template <class F>
void on_ranks(int ranks, F&& fn) {
  run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
    Mesh mesh = make_mesh(world, ranks);
    Outer model(mesh);
    ParameterStore store(model, {});
    fn(model, model_states(store, model), mesh);
  });
}

}  // namespace

TEST_CASE("state: any type in any parts, read by any number of ranks in any other parts") {
  TempFolder folder;
  int number = 0;
  for (int from : {1, 2, 4})
    for (Held held :
         {Held::whole, Held::rows, Held::columns, Held::elements, Held::uneven_elements}) {
      auto directory = folder.path() / std::to_string(number++);
      save_on(from, held, directory);
      for (int to : {1, 2, 4})
        for (Held other :
             {Held::whole, Held::rows, Held::columns, Held::elements, Held::uneven_elements}) {
          INFO(from << " ranks, " << static_cast<int>(held) << " -> " << to << " ranks, "
                    << static_cast<int>(other));
          CHECK_NOTHROW(expect_on(to, other, directory / kStep1));
        }
    }
}

TEST_CASE("state: scalars, and tensors without elements") {
  TempFolder folder;
  auto states_with = [](double value) {
    return std::vector<StateTensor>{
        state_tensor("state/scalar", Tensor::full({}, DType::f64, value)),
        state_tensor("state/none", Tensor::zeros({0, 3}, DType::i64))};
  };
  save_checkpoint(folder.path(), states_with(2.5), {.step = 1}, "", make_self_mesh(), 0);
  auto states = states_with(0);
  load_checkpoint(folder.path() / kStep1, states, make_self_mesh());
  CHECK(states[0].tensor.data<double>()[0] == 2.5);
}

TEST_CASE("state: what modules register is named by the path to it, and cut anew for other ranks") {
  TempFolder folder;
  on_ranks(1, [&](Outer& model, const std::vector<StateTensor>& states, const Mesh& mesh) {
    std::vector<std::string> names;
    for (const StateTensor& state : states) names.push_back(state.name);
    CHECK(names == std::vector<std::string>{"value/weight", "state/inner.count", "state/bias"});
    for (int64_t i = 0; i < 3; ++i) model.inner.count.data<int64_t>()[i] = 10 + i;
    for (int64_t i = 0; i < 8; ++i) model.bias.data<float>()[i] = static_cast<float>(i);
    save_checkpoint(folder.path() / "1", states, {.step = 1}, "", mesh, 0);
  });
  for (int ranks : {2, 4}) {
    on_ranks(ranks, [&](Outer& model, const std::vector<StateTensor>& states, const Mesh& mesh) {
      load_checkpoint(folder.path() / std::to_string(ranks / 2) / kStep1, states, mesh);
      for (int64_t i = 0; i < 3; ++i)
        check(model.inner.count.data<int64_t>()[i] == 10 + i, "the count is another");
      int64_t here = 8 / ranks, first = mesh.expert->rank() * here;
      for (int64_t i = 0; i < here; ++i)
        check(model.bias.data<float>()[i] == static_cast<float>(first + i), "another's bias");
      save_checkpoint(folder.path() / std::to_string(ranks), states, {.step = 1}, "", mesh, 0);
    });
  }
}

TEST_CASE("state: that of a gating policy goes with its model") {
  TempFolder folder;
  tiny::Scenario s{};
  std::vector<std::string> names;
  auto on = [&](int ranks, auto&& fn) {
    run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
      Mesh mesh = make_mesh(world, ranks);
      SelectionRule rule{.kind = SelectionRule::Kind::gap, .k_max = 2, .threshold = 0.1};
      Decoder model(tiny::model_config(s), tiny::moe_config(s), mesh,
                    [&](const GateConfig&, int64_t experts) {
                      return std::make_unique<test::SteeredPolicy>(rule, experts, 0.1);
                    });
      ParameterStore store(model, {});
      auto states = model_states(store, model);
      std::vector<StateTensor> policies;
      for (const StateTensor& state : states)
        if (kind_of(state.name) == "state") policies.push_back(state);
      fn(states, policies, mesh);
    });
  };
  on(1, [&](auto& states, auto& policies, const Mesh& mesh) {
    for (const StateTensor& state : policies) names.push_back(state.name);
    for (size_t i = 0; i < policies.size(); ++i)
      policies[i].tensor.fill(0.5 + static_cast<double>(i));
    save_checkpoint(folder.path(), states, {.step = 1}, "", mesh, 0);
  });
  CHECK(names == std::vector<std::string>{"state/blocks.0.moe.gate.policy.bias",
                                          "state/blocks.1.moe.gate.policy.bias"});
  on(2, [&](auto& states, auto& policies, const Mesh& mesh) {
    load_checkpoint(folder.path() / kStep1, states, mesh, kModelKinds);
    for (size_t i = 0; i < policies.size(); ++i)
      for (double value : policies[i].tensor.to_doubles())
        check(value == 0.5 + static_cast<double>(i), "{} is another", policies[i].name);
  });
}

TEST_CASE("state: what is stored and what is asked for are the same, in name, type and shape") {
  TempFolder folder;
  Mesh mesh = make_self_mesh();
  auto i64 = [](const char* name, int64_t size = 3) {
    return state_tensor(name, Tensor::zeros({size}, DType::i64));
  };
  save_checkpoint(folder.path(), {i64("state/a"), i64("data/order")}, {.step = 1}, "", mesh, 0);
  auto error = [&](const std::vector<StateTensor>& states,
                   std::span<const std::string_view> kinds = {}) {
    return message_of([&] { load_checkpoint(folder.path() / kStep1, states, mesh, kinds); });
  };
  CHECK(error({i64("data/order"), i64("state/a")}) == "no error");
  CHECK_THAT(error({i64("state/a")}), Catch::Contains("has the tensor data/order") &&
                                          Catch::Contains("the program and configuration"));
  CHECK_THAT(error({i64("data/order")}),
             Catch::Contains("has the tensor state/a") && Catch::Contains("another model"));
  CHECK_THAT(error({i64("state/a"), i64("data/order"), i64("run/x")}),
             Catch::Contains("has no tensor run/x"));
  CHECK_THAT(error({i64("state/a"), i64("data/order", 4)}),
             Catch::Contains("data/order has shape [3], the model [4]"));
  CHECK_THAT(error({i64("state/a"), state_tensor("data/order", Tensor::zeros({3}, DType::i32))}),
             Catch::Contains("data/order is stored as i64, but is i32 here"));
  // Of the model alone; its own is accounted for all the same.
  CHECK(error({i64("state/a")}, kModelKinds) == "no error");
  CHECK_THAT(error({}, kModelKinds), Catch::Contains("has the tensor state/a"));
}

TEST_CASE("state: ranks that disagree on it save nothing") {
  auto refused = [](auto&& states_of) {
    TempFolder folder;
    std::string message;
    run_ranks(2, [&](std::shared_ptr<Communicator> world) {
      auto states = states_of(world->rank());
      std::string mine = message_of([&] {
        save_checkpoint(folder.path() / "c", states, {.step = 1}, "", make_mesh(world, 1), 0);
      });
      if (world->rank() == 0) message = mine;
    });
    CHECK(std::filesystem::exists(folder.path() / "c" / kStep1) == (message == "no error"));
    return message;
  };
  auto rows = [](int64_t begin, int64_t count) {
    return std::vector<StateTensor>{
        state_tensor("state/a", Tensor::zeros({count}, DType::f32), {0, begin, 4})};
  };
  CHECK(refused([&](int rank) { return rows(2 * rank, 2); }) == "no error");
  CHECK_THAT(refused([&](int rank) { return rows(rank, 2); }), Catch::Contains("leave a hole"));
  CHECK_THAT(refused([&](int rank) { return rows(2 * rank, 1); }), Catch::Contains("leave a hole"));
  CHECK_THAT(refused([&](int rank) { return rows(0, 4 - rank); }), Catch::Contains("overlap"));
  CHECK_THAT(refused([&](int rank) {
               auto all = rows(2 * rank, 2);
               if (rank == 1) all.push_back(state_tensor("run/b", Tensor::zeros({}, DType::f32)));
               return all;
             }),
             Catch::Contains("run/b") && Catch::Contains("rank 1"));
  CHECK_THAT(refused([&](int) {
               return std::vector<StateTensor>(
                   2, state_tensor("run/b", Tensor::zeros({}, DType::f32)));
             }),
             Catch::Contains("two states are called run/b"));
}

}  // namespace adagate
