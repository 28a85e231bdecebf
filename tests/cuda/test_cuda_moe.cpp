// Kernels of MoE layers and of the key-value cache on the CUDA backend beside the CPU's, where
// their ways part by size: few and many experts, choices of every rule, rows that cannot be moved
// in packs. (What op cases have, test_cuda_ops.cpp compares.)
#include "core/ops/arrival_order.h"
#include "core/ops/kv_cache.h"
#include "core/ops/permute.h"
#include "core/ops/routing.h"
#include "tests/cuda/gpu.h"
#include "tests/support/gradient_check.h"

using namespace adagate;
using namespace adagate::test;

namespace {

// Another order of threads at each call.
void next_order() {
  static uint64_t order = 0;
  order_threads(order++ % 3);
}

// Many short launches: watching the memory at each would take most of the time.
struct Unwatched {
  Unwatched() { guard_memory(false); }
  ~Unwatched() { guard_memory(true); }
};

constexpr int64_t kExperts[] = {1, 5, 8, 16, 17, 33, 64, 70, 400};

GateScores on(Device device, const GateScores& scores) {
  return {scores.probabilities.to(device), scores.log_sum_exp.to(device),
          scores.entropy.to(device)};
}

// Real tokens and padding.
Tensor some_mask(int64_t tokens) {
  Tensor mask = Tensor::empty({tokens}, DType::u8);
  for (int64_t t = 0; t < tokens; ++t) mask.data<uint8_t>()[t] = t % 7 != 3;
  return mask;
}

Tensor some_addresses(int64_t tokens) {
  Tensor addresses = Tensor::empty({tokens}, DType::i64);
  for (int64_t t = 0; t < tokens; ++t) addresses.data<int64_t>()[t] = 1000 + 3 * t;
  return addresses;
}

// The first n numbers of a device's buffer that has room for more.
std::vector<int32_t> first(const Tensor& numbers, int64_t n) {
  return numbers.slice(0, n).to_host<int32_t>();
}

struct Choice {
  const char* name;
  SelectionRule rule;
};
std::vector<Choice> choices(int64_t experts) {
  using Kind = SelectionRule::Kind;
  const int64_t two = std::min<int64_t>(2, experts), many = std::min<int64_t>(9, experts);
  const Rng rng(3, RngStream::routing, 1, 2);
  return {{"one", {.kind = Kind::fixed, .k_max = 1}},
          {"many", {.kind = Kind::fixed, .k_max = many}},
          {"gap", {.kind = Kind::gap, .k_max = many, .threshold = 0.1}},
          {"relative gap",
           {.kind = Kind::gap, .k_max = two, .threshold = 0.3, .pair_normalized = true}},
          {"random", {.kind = Kind::random_second, .k_max = two, .share = 0.4, .rng = rng}}};
}

// A choice, its weights, their order and its sums, all from the same scores.
void check_choice(const GateScores& scores, const SelectionRule& rule, const Tensor& bias) {
  const int64_t tokens = scores.probabilities.dim(0);
  const Tensor mask = some_mask(tokens), addresses = some_addresses(tokens);
  const Device device = gpu();
  const Selection expected = select_experts(scores, rule, mask, addresses, bias);
  const Selection got = select_experts(on(device, scores), rule, mask.to(device),
                                       addresses.to(device), bias ? bias.to(device) : bias);
  const int64_t rows = expected.expert.numel();
  CHECK(got.row_start.to_host<int32_t>() == expected.row_start.to_host<int32_t>());
  CHECK(got.counts.to_host<int64_t>() == expected.counts.to_host<int64_t>());
  CHECK(first(got.expert, rows) == expected.expert.to_host<int32_t>());

  const ExpertOrder order = sort_by_expert(expected), sorted = sort_by_expert(got);
  CHECK(sorted.offsets.device.to_host<int64_t>() == order.offsets.device.to_host<int64_t>());
  CHECK(first(sorted.row, rows) == order.row.to_host<int32_t>());
  CHECK(first(sorted.token, rows) == order.token.to_host<int32_t>());

  const Tensor sums = routing_sums(scores, expected, mask, rule.pair_normalized);
  const Tensor on_device =
      routing_sums(on(device, scores), got, mask.to(device), rule.pair_normalized);
  CHECK(relative_error(on_device.to(Device{}), sums) < 1e-12);
}

Tensor integers(const std::vector<int32_t>& values, Device device) {
  return Tensor::from(std::span<const int32_t>(values), {static_cast<int64_t>(values.size())},
                      device);
}

// A cache after rows of different lengths, some of them padding, and a reordering.
KvCache fill_cache(int64_t head_dim, double rotary, DType type, Device device) {
  const AttentionShape shape{.batch = 3,
                             .sequence = 11,
                             .heads = 2,
                             .kv_heads = 2,
                             .head_dim = head_dim,
                             .rotary_base = rotary};
  KvCache cache{.sequences = 3};
  for (uint64_t step : {1, 2}) {
    const Tensor qkv = random_normal({33, 6 * head_dim}, step).to(type).to(device);
    cache.append({qkv, 2 * head_dim}, {qkv, 4 * head_dim}, shape,
                 step == 1 ? integers({11, 0, 4}, device) : Tensor());
  }
  cache.reorder(integers({2, 2, 0, 1}, device));
  return cache;
}

}  // namespace

TEST_CASE("CUDA: a gate's scores are the CPU's, and a token's the same wherever it stands") {
  const Unwatched memory;
  for (DType type : {DType::f32, DType::bf16, DType::f64})
    for (int64_t experts : kExperts)
      for (int64_t width : {33, 72}) {
        INFO(name_of(type) << ", " << experts << " experts, width " << width);
        next_order();
        constexpr int64_t kTokens = 150;
        const DType gate = compute_dtype(type);
        Tensor x = random_normal({kTokens, width}, 1).to(type);
        const Tensor weight = random_normal({width, experts}, 2, 0.3).to(gate);
        const GateScores expected = gate_scores(x, weight);
        const Tensor on_device = x.to(gpu()), same_weight = weight.to(gpu());
        const GateScores got = gate_scores(on_device, same_weight);
        const double bound = gate == DType::f64 ? 1e-13 : 2e-5;
        CHECK(relative_error(got.probabilities.to(Device{}), expected.probabilities) < bound);
        CHECK(relative_error(got.log_sum_exp.to(Device{}), expected.log_sum_exp) < bound);
        CHECK(relative_error(got.entropy.to(Device{}), expected.entropy) < bound);
        const GateScores alone =
            gate_scores(on_device.slice(kTokens - 1, kTokens).clone(), same_weight);
        CHECK(alone.probabilities.to_doubles() ==
              got.probabilities.slice(kTokens - 1, kTokens).to_doubles());
      }
}

TEST_CASE("CUDA: choices of experts, their order and their sums are the CPU's") {
  const Unwatched memory;
  for (DType type : {DType::f32, DType::f64})
    for (int64_t experts : kExperts)
      for (int64_t tokens : {0, 1, 300}) {
        const Tensor x = random_normal({tokens, 16}, 1).to(type);
        const GateScores scores = gate_scores(x, random_normal({16, experts}, 2).to(type));
        for (const Choice& choice : choices(experts)) {
          INFO(name_of(type) << ", " << experts << " experts, " << tokens << " tokens, "
                             << choice.name);
          next_order();
          check_choice(scores, choice.rule, {});
          next_order();
          check_choice(scores, choice.rule, random_normal({experts}, 3, 0.1).to(DType::f32));
        }
      }
}

TEST_CASE("CUDA: the order of arriving rows is the CPU's") {
  const Unwatched memory;
  for (int64_t sources : {1, 3})
    for (int64_t groups : {1, 8, 400}) {
      INFO(sources << " sources, " << groups << " groups");
      next_order();
      std::vector<int64_t> counts;
      for (int64_t i = 0; i < sources * groups; ++i) counts.push_back(i * 7 % 5 * (i % 3));
      const ArrivalOrder expected = arrival_order(counts, sources, {});
      const ArrivalOrder got = arrival_order(counts, sources, gpu());
      CHECK(got.offsets.device.to_host<int64_t>() == expected.offsets.host);
      CHECK(got.to_sorted.to_host<int32_t>() == expected.to_sorted.to_host<int32_t>());
      CHECK(got.to_arrived.to_host<int32_t>() == expected.to_arrived.to_host<int32_t>());
    }
}

TEST_CASE("CUDA: caches hold what the CPU's hold") {
  const Unwatched memory;
  for (DType type : {DType::f32, DType::bf16, DType::f64})
    for (int64_t head_dim : {6, 64})
      for (double rotary : {0.0, 150.0}) {
        INFO(name_of(type) << ", head_dim " << head_dim << ", rotary " << rotary);
        next_order();
        const KvCache expected = fill_cache(head_dim, rotary, type, {});
        const KvCache got = fill_cache(head_dim, rotary, type, gpu());
        const std::vector<int32_t> lengths = expected.lengths.to_host<int32_t>();
        CHECK(got.lengths.to_host<int32_t>() == lengths);
        const double bound = type == DType::f64 ? 1e-14 : type == DType::f32 ? 1e-6 : 8e-3;
        for (int64_t s = 0; s < 4; ++s) {
          const int64_t rows = lengths[static_cast<size_t>(s)];
          auto of = [&](const Tensor& all) {
            const int64_t capacity = all.dim(1), cols = all.cols();
            return all.reshape({4 * capacity, cols}).slice(s * capacity, s * capacity + rows);
          };
          CHECK(relative_error(of(got.k.to(Device{})), of(expected.k)) <= bound);
          CHECK(relative_error(of(got.v.to(Device{})), of(expected.v)) == 0);
        }
        CHECK(next_positions(got, 5, gpu()).to_host<int32_t>() ==
              next_positions(expected, 5, {}).to_host<int32_t>());
      }
}
