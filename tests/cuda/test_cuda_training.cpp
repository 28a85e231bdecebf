// Training on the CUDA backend, one rank and several, gives the CPU's losses.
#include "tests/cuda/gpu.h"
#include "tests/support/catch.h"
#include "tests/support/device_training.h"

using namespace adagate;
using namespace adagate::test;
using namespace adagate::test::device_training;

namespace {

Device on_cpu(int) {
  return {};
}

Device on_gpu(int rank) {
  return gpu(rank);
}

// Losses and auxiliary losses; norms of the gradient, which small differences of one step make
// larger ones in the next.
void check_close(const Run& got, const Run& expected, DType compute) {
  REQUIRE(got.figures.size() == expected.figures.size());
  for (size_t i = 0; i < got.figures.size(); ++i) {
    bool norm = i % 3 == 2;
    double tolerance = compute == DType::bf16 ? 2e-2 : norm ? 1e-4 : 1e-5;
    INFO("figure " << i << ": " << got.figures[i] << " against the CPU's " << expected.figures[i]);
    CHECK(std::abs(got.figures[i] - expected.figures[i]) <=
          tolerance * std::max(1.0, std::abs(expected.figures[i])));
  }
}

void check_same_bits(const Run& a, const Run& b) {
  CHECK(a.figures == b.figures);
  CHECK(a.tensors == b.tensors);
}

}  // namespace

TEST_CASE("CUDA training: losses, auxiliary losses and gradient norms are the CPU's", "[long]") {
  for (const Form& form : training_forms())
    for (Layout layout : kLayouts) {
      if (form.sizes.experts == 0 && layout.expert > 1) continue;
      INFO(form.name << ", " << layout.ranks << " ranks, expert parallel " << layout.expert);
      guard_memory(form.compute == DType::bf16);  // two forms are enough to watch the host
      auto expected = train_ranks(form, on_cpu, layout.ranks, layout.expert);
      auto got = train_ranks(form, on_gpu, layout.ranks, layout.expert);
      for (size_t r = 0; r < got.size(); ++r) check_close(got[r], expected[r], form.compute);
    }
  guard_memory(true);
}

TEST_CASE("CUDA training: twice the same bits, in whatever order threads run") {
  for (const Form& form : {Form{.name = "dense", .sizes = {.preset = "modern", .dropout = 0.1}},
                           Form{.name = "MoE", .sizes = {.experts = 4, .padded = true}}}) {
    INFO(form.name);
    auto first = train_ranks(form, on_gpu, 2, form.sizes.experts > 0 ? 2 : 1);
    for (uint64_t order : {1, 2}) {
      order_threads(order);
      auto again = train_ranks(form, on_gpu, 2, form.sizes.experts > 0 ? 2 : 1);
      for (size_t r = 0; r < again.size(); ++r) check_same_bits(again[r], first[r]);
    }
    order_threads(0);
  }
}

TEST_CASE("CUDA training: a warm step allocates nothing and waits for no whole device") {
  for (DType compute : {DType::f32, DType::bf16}) {
    Form form{.name = "MoE", .sizes = {.experts = 4, .padded = true}, .compute = compute};
    fixed_step::Trainer trainer(form.sizes, {.compute = compute, .device = gpu()},
                                make_mesh(stage_through_host(make_self_communicator()), 1));
    Batch batch = fixed_step::make_up_batch(form.sizes, 0);
    for (int warm = 0; warm < 2; ++warm) trainer.run(batch, 0.01);
    auto before = costly_calls();
    trainer.run(batch, 0.01);
    for (const auto& [name, calls] : costly_calls()) {
      INFO(name);
      CHECK(calls == before[name]);
    }
  }
}
