// Training on devices whose memory the host can't touch, one rank and several, ends in the CPU's
// bits, and asks the device for as little as a GPU can afford.
#include <cstring>

#include "parallel/staged_communicator.h"
#include "tests/support/catch.h"
#include "tests/support/device_training.h"
#include "tests/support/guarded_device.h"
#include "tests/support/temp_folder.h"
#include "train/checkpoint.h"
#include "train/evaluation.h"
#include "train/task_table.h"

using namespace adagate;
using namespace adagate::test;
using namespace adagate::test::device_training;

namespace {

Device on_cpu(int) {
  return {};
}

Device on_guarded(int rank) {
  return guarded_device(rank);
}

void check_same(const Run& got, const Run& expected) {
  CHECK(got.figures == expected.figures);
  REQUIRE(got.tensors.size() == expected.tensors.size());
  for (size_t t = 0; t < got.tensors.size(); ++t) {
    INFO("tensor " << t);
    REQUIRE(got.tensors[t].size() == expected.tensors[t].size());
    CHECK(std::memcmp(got.tensors[t].data(), expected.tensors[t].data(),
                      got.tensors[t].size() * sizeof(float)) == 0);
  }
}

}  // namespace

TEST_CASE("guarded training: one rank and several end in the CPU's bits") {
  for (const Form& form : training_forms())
    for (Layout layout : kLayouts) {
      if (form.sizes.experts == 0 && layout.expert > 1) continue;
      INFO(form.name << ", " << layout.ranks << " ranks, expert parallel " << layout.expert);
      auto expected = train_ranks(form, on_cpu, layout.ranks, layout.expert);
      auto got = train_ranks(form, on_guarded, layout.ranks, layout.expert);
      for (size_t r = 0; r < got.size(); ++r) check_same(got[r], expected[r]);
      CHECK(expected[0].figures[0] != expected[0].figures[6]);
    }
}

TEST_CASE("guarded training: state is saved from a device and read onto one") {
  TempFolder folder;
  Form moe{.name = "MoE", .sizes = {.experts = 4}};
  std::vector<std::vector<float>> saved, read;
  Mesh mesh = make_mesh(stage_through_host(make_self_communicator()), 1);
  for (bool reads : {false, true}) {
    fixed_step::Trainer trainer(moe.sizes, {.device = guarded_device()}, mesh);
    auto states = trainer.states();
    if (reads) {
      load_checkpoint(folder.path("step-00000001"), states, mesh);
    } else {
      Batch batch = fixed_step::make_up_batch(moe.sizes, 0);
      trainer.run(batch, 0.01);
      save_checkpoint(folder.path(), states, {.step = 1}, "", mesh, 0);
    }
    for (const StateTensor& s : states) (reads ? read : saved).push_back(s.tensor.to_floats());
  }
  CHECK(read == saved);
}

TEST_CASE("guarded training: an evaluation on a device tells the CPU's metrics") {
  class Samples final : public Dataset {
   public:
    int64_t size() const override { return 13; }
    Sample get(int64_t id) const override {
      Sample sample;
      for (int64_t t = 0; t <= id % 5; ++t) {
        sample.ids.push_back(static_cast<int32_t>((3 * id + t) % 61));
        sample.targets.push_back(static_cast<int32_t>((id + 7 * t) % 61));
      }
      return sample;
    }
  };
  Samples samples;
  EvaluationPass pass(samples, 4, 0, 1);
  Mesh mesh = make_mesh(stage_through_host(make_self_communicator()), 1);
  auto evaluated = [&](Device device, bool moe) {
    fixed_step::Trainer trainer({.experts = moe ? 4 : 0}, {.device = device}, mesh);
    RoutingStep routing = routing_step_of(trainer.model());
    EvaluationResult result = evaluate(kLanguageModelling, trainer.model(), pass, mesh, &routing);
    return std::pair{result.loss(), routing.layers() ? routing.layer(0).assignments() : 0};
  };
  for (bool moe : {false, true}) {
    INFO("MoE " << moe);
    CHECK(evaluated(guarded_device(), moe) == evaluated(Device{}, moe));
  }
}

TEST_CASE("guarded training: what a warm step reads of the device is bounded") {
  auto reads = [](const Form& form, int ranks, int expert) {
    return train_ranks(form, on_guarded, ranks, expert)[0].last_step.reads;
  };
  Form dense{.name = "dense"}, moe{.name = "MoE", .sizes = {.experts = 4}};
  const int64_t layers = moe.sizes.layers;
  // The loss, the gradient's squares and what the MoE layers have counted, together.
  CHECK(reads(dense, 1, 1) == 1);
  for (int ranks : {1, 2}) CHECK(reads(moe, ranks, 1) == 1);
  // Besides, where experts are on several ranks, how many rows each MoE layer sends.
  CHECK(reads(moe, 2, 2) == 1 + layers);
  // Not again by the passes that repeat a choice: behind the counting pass, and in backward.
  moe.recompute = true;
  CHECK(reads(moe, 1, 1) == 1);
  CHECK(reads(moe, 2, 2) == 1 + layers);
  moe.micro_batches = 2;
  CHECK(reads(moe, 1, 1) == 1);
  CHECK(reads(moe, 2, 2) == 1 + 2 * layers);
}
