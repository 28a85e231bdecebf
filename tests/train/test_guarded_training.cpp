// Training on devices whose memory the host can't touch, one rank and several, ends in the CPU's
// bits, and asks the device for as little as a GPU can afford.
#include <cstring>

#include "core/device/copy.h"
#include "moe/policy_table.h"
#include "parallel/staged_communicator.h"
#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"
#include "tests/support/fixed_step.h"
#include "tests/support/guarded_device.h"
#include "tests/support/temp_folder.h"
#include "train/checkpoint.h"
#include "train/evaluation.h"
#include "train/task_table.h"

using namespace adagate;
using namespace adagate::test;
using fixed_step::Sizes;

namespace {

struct Form {
  const char* name;
  Sizes sizes = {};
  DType compute = DType::f32;
  bool recompute = false;
  int micro_batches = 1;
};

std::vector<Form> forms() {
  Sizes padded{.experts = 4, .padded = true};
  std::vector<Form> all = {
      {.name = "dense"},
      {.name = "dense, bf16, padded", .sizes = {.padded = true}, .compute = DType::bf16},
      {.name = "MoE, bf16, padded", .sizes = padded, .compute = DType::bf16},
      {.name = "MoE, recomputed blocks", .sizes = padded, .recompute = true},
      {.name = "MoE, two micro-batches", .sizes = padded, .micro_batches = 2}};
  for (const char* preset : {"gpt2", "modern"})
    all.push_back({.name = preset,
                   .sizes = {.experts = 4, .padded = true, .preset = preset, .dropout = 0.1}});
  for (const GatingPolicyEntry& policy : kGatingPolicies)
    all.push_back(
        {.name = policy.name.data(), .sizes = {.experts = 4, .policy = policy.name.data()}});
  return all;
}

// What a run of a few steps leaves: figures of each step, values and gradients of all parameters.
struct Run {
  std::vector<double> figures;
  std::vector<std::vector<float>> tensors;
  TransferStats last_step;  // what the last step moved between device and host
};

Run train(const Form& form, Device device, std::shared_ptr<Communicator> world, int expert) {
  StoreOptions options{.compute = form.compute, .device = device};
  Mesh mesh = make_mesh(std::move(world), expert);
  if (mesh.ranks() > 1) {
    options.allocate_grad = [&](ParameterGroup g, size_t bytes) {
      return mesh.group(g).copies->on(device, "gradients").allocate(bytes);
    };
  }
  fixed_step::Trainer trainer(form.sizes, options, mesh, form.recompute);
  Run run;
  for (int step = 0; step < 3; ++step) {
    std::vector<Batch> batches;
    for (int m = 0; m < form.micro_batches; ++m)
      batches.push_back(fixed_step::make_up_batch(
          form.sizes, (step * form.micro_batches + m) * mesh.ranks() + mesh.world->rank()));
    TransferStats before = transfer_stats();
    StepResult result = trainer.run(batches, 0.01);
    TransferStats after = transfer_stats();
    run.last_step = {after.reads - before.reads, after.read_bytes - before.read_bytes,
                     after.writes - before.writes, after.write_bytes - before.write_bytes};
    for (double figure : {result.loss, result.auxiliary_loss, result.grad_norm})
      run.figures.push_back(figure);
  }
  for (Parameter* p : trainer.store().parameters()) {
    run.tensors.push_back(p->master().to_floats());
    run.tensors.push_back(p->grad().to_floats());
  }
  return run;
}

// One run per rank; ranks are threads.
std::vector<Run> train_ranks(const Form& form, bool guarded, int ranks, int expert) {
  std::vector<Run> runs(static_cast<size_t>(ranks));
  run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
    int rank = world->rank();
    Device device = guarded ? guarded_device(rank) : Device{};
    runs[static_cast<size_t>(rank)] =
        train(form, device, stage_through_host(std::move(world)), expert);
  });
  return runs;
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
  struct Layout {
    int ranks, expert;
  };
  for (const Form& form : forms())
    for (Layout layout : {Layout{1, 1}, Layout{2, 1}, Layout{2, 2}, Layout{4, 2}}) {
      if (form.sizes.experts == 0 && layout.expert > 1) continue;
      INFO(form.name << ", " << layout.ranks << " ranks, expert parallel " << layout.expert);
      auto expected = train_ranks(form, false, layout.ranks, layout.expert);
      auto got = train_ranks(form, true, layout.ranks, layout.expert);
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
    return train_ranks(form, true, ranks, expert)[0].last_step.reads;
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
