// Short trainings whose figures and weights tests compare between devices and numbers of ranks.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/device/copy.h"
#include "moe/policy_table.h"
#include "parallel/staged_communicator.h"
#include "parallel/thread_communicator.h"
#include "tests/support/fixed_step.h"

namespace adagate::test::device_training {

// Of model, precision and step, to be tried on every device.
struct Form {
  const char* name;
  fixed_step::Sizes sizes = {};
  DType compute = DType::f32;
  bool recompute = false;
  int micro_batches = 1;
};

inline std::vector<Form> training_forms() {
  fixed_step::Sizes padded{.experts = 4, .padded = true};
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

inline Run train(const Form& form, Device device, std::shared_ptr<Communicator> world, int expert) {
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

// One run per rank; ranks are threads. device_of(rank): where it computes.
inline std::vector<Run> train_ranks(const Form& form, const std::function<Device(int)>& device_of,
                                    int ranks, int expert) {
  std::vector<Run> runs(static_cast<size_t>(ranks));
  run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
    int rank = world->rank();
    runs[static_cast<size_t>(rank)] =
        train(form, device_of(rank), stage_through_host(std::move(world)), expert);
  });
  return runs;
}

struct Layout {
  int ranks, expert;
};
constexpr Layout kLayouts[] = {{1, 1}, {2, 1}, {2, 2}, {4, 2}};

}  // namespace adagate::test::device_training
