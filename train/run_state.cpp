#include "train/run_state.h"

#include <set>

namespace adagate {

std::vector<StateTensor> model_states(const ParameterStore& store, Module& model) {
  std::vector<StateTensor> states;
  for (Parameter* p : store.parameters())
    states.push_back(state_tensor("value/" + p->name(), p->master(), p->spec().shard));
  std::set<std::string> names;
  model.for_each_state([&](const std::string& name, Tensor& tensor, const Shard& shard) {
    check(names.insert(name).second, "two states of the model are called {}", name);
    states.push_back(state_tensor("state/" + name, tensor, shard));
  });
  return states;
}

}  // namespace adagate
