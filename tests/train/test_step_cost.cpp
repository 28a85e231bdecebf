// A guard against slower steps that doesn't look at a clock: what a fixed step asks of the
// allocator. Every temporary, copy and zero-filled buffer shows in these counts; a change that
// needs more of them raises the bound here, on purpose.
#include "core/base/threads.h"
#include "core/device/allocator.h"
#include "core/ops/matmul_library.h"
#include "tests/support/catch.h"
#include "tests/support/one_thread.h"
#include "tests/train/tiny_run.h"

using namespace adagate;

namespace {

constexpr int64_t kTokens = 8 * 64, kWidth = 64;

struct Fixed {
  const char* name;
  bool moe;
  DType compute;
  int64_t allocations;  // of a warm step, at most
  // Memory handed out, in values of the compute type per token, layer and element of the width;
  // about half of it is attention's working memory.
  double values;
};

ModelConfig model_config() {
  ModelConfig m;
  m.layers = 4;
  m.width = kWidth;
  m.heads = 4;
  m.context = 64;
  m.vocabulary = 23;
  return m;
}

MoeConfig moe_config(bool moe) {
  MoeConfig config;
  config.experts = moe ? 4 : 0;
  config.gate.policy = "top2";
  return config;
}

struct Cost {
  int64_t allocations = 0, bytes = 0, system_calls = 0, peak = 0;
};

// The same step again and again (learning rate 0); the cost of each after some to warm up: a small
// request may take the block of a larger one, so the blocks settle only then.
std::vector<Cost> costs_of(const Fixed& f) {
  OneThread one;
  trim_allocator();  // whatever the tests before left
  tiny::Scenario scenario{.name = "full", .sequence = 64};
  tiny::Samples samples(scenario, 8);
  Mesh mesh = make_self_mesh();
  Decoder model(model_config(), moe_config(f.moe), mesh);
  ParameterStore store(model, {.master = DType::f32, .compute = f.compute, .allocate_grad = {}});
  store.initialize(1);
  AdamW optimizer(store, {});
  TrainingStep step(model, kNextToken, store, optimizer, mesh, {});
  std::vector<int64_t> ids = {0, 1, 2, 3, 4, 5, 6, 7};
  std::vector<Batch> batches = {make_batch(samples, ids, ids)};
  std::vector<Cost> costs;
  for (int i = 0; i < 9; ++i) {
    reset_peak_memory();
    AllocatorStats before = allocator_stats();
    step.run(batches, 0, 0.0, false);
    AllocatorStats after = allocator_stats();
    if (i < 6) continue;
    costs.push_back(
        {after.allocations - before.allocations, after.bytes_handed_out - before.bytes_handed_out,
         after.system_calls - before.system_calls, after.peak_bytes_in_use - before.bytes_in_use});
  }
  return costs;
}

}  // namespace

TEST_CASE("A warm step asks the system for nothing and the allocator for no more than before") {
  // Conversions for products that the library can't do come on top elsewhere.
  bool one_dnn = matmul_library().starts_with("oneDNN");
#ifdef __AVX512BF16__
  bool bf16_products = one_dnn;
#else
  bool bf16_products = false;
#endif
  for (const Fixed& f : {Fixed{"dense f32", false, DType::f32, 376, 83},
                         Fixed{"dense bf16", false, DType::bf16, 376, 167},
                         Fixed{"MoE f32", true, DType::f32, 445, 111},
                         Fixed{"MoE bf16", true, DType::bf16, 445, 196}}) {
    auto costs = costs_of(f);
    for (const Cost& cost : costs) {
      double values = static_cast<double>(cost.bytes) / static_cast<double>(size_of(f.compute)) /
                      static_cast<double>(kTokens * kWidth * 4);
      INFO(f.name << ": " << cost.allocations << " blocks, " << cost.bytes << " bytes (" << values
                  << " values per token, width and layer), peak " << cost.peak);
      CHECK(cost.system_calls == 0);
      CHECK(cost.allocations == costs.front().allocations);
      if (f.compute == DType::bf16 ? !bf16_products : !one_dnn) continue;
      CHECK(cost.allocations <= f.allocations);
      CHECK(values <= f.values);
    }
  }
}
