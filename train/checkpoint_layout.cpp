#include "train/checkpoint_layout.h"

#include <map>

namespace adagate {
namespace {

// Elements of one entry along the cut.
int64_t elements_of_entry(const Shape& shape, int cut) {
  int64_t extent = extent_of(shape, cut);
  return extent ? shape.numel() / extent : 0;
}

// The ranks that have each of a tensor's parts, by where it begins.
struct Holders {
  int64_t count = 0;
  std::vector<int64_t> ranks;
};

std::map<int64_t, Holders> holders_of(const StateTensor& state, size_t index, size_t states,
                                      const std::vector<HeldPart>& held) {
  std::map<int64_t, Holders> parts;
  bool fit = true;
  for (size_t rank = 0; rank * states < held.size(); ++rank) {
    const HeldPart& part = held[rank * states + index];
    if (part.count == 0) continue;
    Holders& holders = parts[part.begin];
    fit = fit && (holders.ranks.empty() || holders.count == part.count);
    holders.count = part.count;
    holders.ranks.push_back(static_cast<int64_t>(rank));
  }
  int64_t covered = 0;
  for (const auto& [begin, holders] : parts) {
    fit = fit && begin == covered;
    covered = begin + holders.count;
  }
  check(fit && covered == extent_of(state.shape, state.shard.dim),
        "the ranks' parts of {} {} overlap, or leave a hole", state.name, state.shape);
  return parts;
}

}  // namespace

int64_t extent_of(const Shape& shape, int cut) {
  if (cut == Shard::kElements) return shape.numel();
  return shape.rank() ? shape[std::max(cut, 0)] : 1;
}

PartLayout part_layout(const Shape& shape, int cut, int64_t begin, int64_t count) {
  if (cut == Shard::kElements || shape.rank() == 0) return {1, begin, count, 0};
  int64_t outer = 1, inner = 1;
  int dim = std::max(cut, 0);
  for (int d = 0; d < dim; ++d) outer *= shape[d];
  for (int d = dim + 1; d < shape.rank(); ++d) inner *= shape[d];
  return {outer, begin * inner, count * inner, shape[dim] * inner};
}

std::vector<PlannedSlice> plan_slices(const std::vector<StateTensor>& states,
                                      const std::vector<HeldPart>& held) {
  std::vector<PlannedSlice> plan;
  std::vector<size_t> load(states.empty() ? 0 : held.size() / states.size(), 0);
  for (size_t i = 0; i < states.size(); ++i) {
    const StateTensor& state = states[i];
    size_t entry = static_cast<size_t>(elements_of_entry(state.shape, state.shard.dim)) *
                   size_of(state.tensor.dtype());
    for (const auto& [begin, holders] : holders_of(state, i, states.size(), held)) {
      int64_t shard =
          *std::min_element(holders.ranks.begin(), holders.ranks.end(), [&](int64_t a, int64_t b) {
            return load[static_cast<size_t>(a)] < load[static_cast<size_t>(b)];
          });
      load[static_cast<size_t>(shard)] += static_cast<size_t>(holders.count) * entry;
      bool whole = state.shard.dim == Shard::kWhole;
      plan.push_back({state.name, whole ? state.name : fmt::format("{}@{}", state.name, begin),
                      shard, begin, holders.count});
    }
  }
  return plan;
}

}  // namespace adagate
