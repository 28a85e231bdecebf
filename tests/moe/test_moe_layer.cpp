// The MoE layer against finite differences, against other forms of itself and the dense layer, and
// in every layout.
#include "core/base/threads.h"
#include "layers/feed_forward.h"
#include "moe/routing_report.h"
#include "tests/moe/moe_run.h"
#include "tests/support/gradient_check.h"

namespace adagate::test {
namespace {

void check_close(const Tensor& a, const Tensor& b, double tolerance) {
  REQUIRE(a.shape() == b.shape());
  CHECK(relative_error(a, b) <= tolerance);
}

void check_same_run(const LayerRun& a, const LayerRun& b, double tolerance = 1e-12) {
  check_close(a.y, b.y, tolerance);
  check_close(a.dx, b.dx, tolerance);
  REQUIRE(a.grads.size() == b.grads.size());
  for (auto& [name, grad] : a.grads) {
    INFO(name);
    check_close(grad, b.grads.at(name), tolerance);
  }
  CHECK(a.loss == Approx(b.loss).epsilon(tolerance));
  CHECK(a.auxiliary == Approx(b.auxiliary).epsilon(tolerance));
  REQUIRE(a.routing.size() == 1);
  REQUIRE(b.routing.size() == 1);
  CHECK(a.routing[0].sums.assigned == b.routing[0].sums.assigned);
  CHECK(a.routing[0].sums.by_count == b.routing[0].sums.by_count);
  CHECK(a.routing[0].sums.tokens == b.routing[0].sums.tokens);
  CHECK(a.routing[0].flops == Approx(b.routing[0].flops));
}

// d(loss + auxiliary) / d(parameter or x) in six random directions.
void check_finite_differences(const MoeLayerConfig& config, const GlobalBatch& batch) {
  constexpr double kStep = 1e-6;
  LayerRun run = run_layer(config, batch);
  auto total = [](const LayerRun& r) { return r.loss + r.auxiliary; };
  auto check_direction = [&](const Tensor& grad, const Tensor& direction, auto&& at) {
    double numeric = (total(at(kStep)) - total(at(-kStep))) / (2 * kStep);
    double analytic = dot(grad, direction);
    INFO("tape " << analytic << ", finite differences " << numeric);
    CHECK(std::abs(numeric - analytic) <= 2e-7 * (1 + std::sqrt(dot(grad, grad))));
  };
  for (uint64_t trial = 0; trial < 4; ++trial) {
    for (auto& [name, grad] : run.grads) {
      INFO(name << ", direction " << trial);
      Tensor direction = random_normal(grad.shape(), 70 + trial, 0.1);
      check_direction(grad, direction, [&, name = name](double step) {
        return run_layer(config, batch, {}, [&](const std::string& other, Parameter& p) {
          if (other != name) return;
          for (int64_t i = 0; i < p.numel(); ++i)
            p.master().data<double>()[i] += step * direction.data<double>()[i];
        });
      });
    }
    INFO("x, direction " << trial);
    Tensor direction = random_normal(batch.x.shape(), 80 + trial, 0.1);
    check_direction(run.dx, direction, [&](double step) {
      GlobalBatch moved = batch;
      moved.x = batch.x.clone();
      for (int64_t i = 0; i < moved.x.numel(); ++i)
        moved.x.data<double>()[i] += step * direction.data<double>()[i];
      return run_layer(config, moved);
    });
  }
}

// Sends every token to experts 0 (and 1): equal probabilities, ties to the lower index.
void zero_gate(const std::string& name, Parameter& p) {
  if (name == "gate.weight") p.master().fill(0);
}

// The layer, of one expert, does what a feed-forward with the same weights does.
void expect_dense(const MoeLayerConfig& config, const GlobalBatch& batch, DType type) {
  FeedForward dense({.width = config.width,
                     .hidden = config.hidden,
                     .activation = config.activation,
                     .bias = config.bias});
  ParameterStore store(dense, {.master = type, .compute = type, .allocate_grad = {}});
  for (Parameter* p : store.parameters())
    p->master().copy_from(random_normal(p->spec().shape, hash_name(p->name()), 0.3));
  Layout layout;
  layout.type = type;
  LayerRun moe = run_layer(config, batch, layout, [&](const std::string& name, Parameter& p) {
    if (name == "gate.weight") return;
    Parameter* same = store.find(name.substr(std::string("experts.").size()));
    check(same != nullptr, "the feed-forward has no {}", name);
    p.master().copy_from(same->master());
  });
  store.clear_gradients();
  Tensor x = batch.x.to(type).clone();
  x.set_slot(std::make_shared<GradSlot>());
  Tape tape;
  Tensor y;
  {
    Recording on(tape);
    y = dense.forward(x, StepContext{}, padded_rows(1, x.rows()));
  }
  tape.backward(y, batch.cotangent.to(type));
  double tolerance = type == DType::f64 ? 1e-13 : 1e-6;
  check_close(moe.y, y.detach().to(DType::f64), tolerance);
  check_close(moe.dx, x.slot()->value().to(DType::f64), tolerance);
  for (Parameter* p : store.parameters()) {
    INFO(p->name());
    Tensor grad = moe.grads.at("experts." + p->name());
    check_close(grad.reshape(p->spec().shape), p->grad().to(DType::f64), tolerance);
  }
  // The only expert's probability is 1 whatever the gate does.
  const Tensor& gate = moe.grads.at("gate.weight");
  CHECK(dot(gate, gate) < (type == DType::f64 ? 1e-26 : 1e-10));
}

}  // namespace

TEST_CASE("MoE layer: finite differences for every policy and loss", "[moe]") {
  GlobalBatch batch = small_batch(23, 12, /*padded=*/true);
  for (const auto& entry : kGatingPolicies)
    for (std::string combine : {"raw", "renormalized"})
      for (std::string loss : {"paper", "switch"}) {
        INFO(entry.name << ", " << combine << ", " << loss);
        MoeLayerConfig config = small_layer(std::string(entry.name), loss);
        config.moe.gate.combine = combine;
        check_finite_differences(config, batch);
        if (entry.name != "adaptive") continue;
        INFO("gaps of pairs");
        config.moe.gate.normalize = "pair";
        config.moe.gate.threshold = 0.3;
        check_finite_differences(config, batch);
      }
}

TEST_CASE("MoE layer: finite differences with swiglu and without biases", "[moe]") {
  MoeLayerConfig config = small_layer();
  config.activation = Activation::swiglu;
  config.bias = false;
  config.moe.gate.normalize = "pair";
  config.moe.gate.k_max = 3;
  check_finite_differences(config, small_batch(20));
}

TEST_CASE("MoE layer: one global batch in every layout", "[moe]") {
  for (const auto& entry : kGatingPolicies)
    for (bool padded : {false, true}) {
      GlobalBatch batch = small_batch(37, 12, padded);
      MoeLayerConfig config = small_layer(std::string(entry.name));
      LayerRun whole = run_layer(config, batch);
      for (Layout layout : {Layout{1, 1, 4}, Layout{2, 1, 1}, Layout{2, 2, 1}, Layout{4, 1, 1},
                            Layout{4, 2, 1}, Layout{4, 4, 1}, Layout{2, 2, 2}, Layout{4, 2, 3}})
        for (bool recompute : {false, true}) {
          layout.recompute = recompute;
          INFO(entry.name << (padded ? ", padded" : "") << ": " << layout.ranks << " ranks, expert "
                          << layout.expert_parallel << ", micro-batches " << layout.micro_batches
                          << (recompute ? ", recomputed" : ""));
          check_same_run(run_layer(config, batch, layout), whole);
        }
    }
}

TEST_CASE("MoE layer: empty and uneven ranks", "[moe]") {
  GlobalBatch batch = small_batch(20);
  for (std::string loss : {"paper", "switch"}) {
    MoeLayerConfig config = small_layer("adaptive", loss);
    LayerRun whole = run_layer(config, batch);
    check_same_run(run_layer(config, batch, {4, 4, 1, false, DType::f64, {0, 20, 0, 0}}), whole);
    check_same_run(run_layer(config, batch, {4, 2, 1, true, DType::f64, {3, 0, 1, 16}}), whole);
    check_same_run(run_layer(config, batch, {2, 2, 2, false, DType::f64, {0, 0, 19, 1}}), whole);
  }
}

TEST_CASE("MoE layer: no token at all", "[moe]") {
  LayerRun run = run_layer(small_layer(), small_batch(0), {2, 2, 1});
  for (auto& [name, grad] : run.grads) {
    INFO(name);
    CHECK(dot(grad, grad) == 0);
  }
  CHECK(run.auxiliary == 0);
}

TEST_CASE("MoE layer: all tokens padded", "[moe]") {
  GlobalBatch batch = small_batch(9);
  batch.mask = mask_of(std::vector<int>(9, 0));
  LayerRun run = run_layer(small_layer(), batch, {2, 2, 1});
  CHECK(dot(run.y, run.y) == 0);
  CHECK(dot(run.dx, run.dx) == 0);
  for (auto& [name, grad] : run.grads) {
    INFO(name);
    CHECK(dot(grad, grad) == 0);
  }
  CHECK(run.routing[0].sums.tokens == 0);
  CHECK(run.routing[0].assignments() == 0);
}

TEST_CASE("MoE layer: all tokens to one expert", "[moe]") {
  GlobalBatch batch = small_batch(37);
  MoeLayerConfig config = small_layer("top1", "switch");
  LayerRun whole = run_layer(config, batch, {}, zero_gate);
  CHECK(whole.routing[0].sums.assigned[0] == 37);
  // f = (1, 0, ..), p even: the loss is c E (1/E) = c; lse = log E.
  double z = config.moe.balance.z_coefficient * std::log(8.0) * std::log(8.0);
  CHECK(whole.auxiliary == Approx(config.moe.balance.coefficient + z).epsilon(1e-12));
  check_same_run(run_layer(config, batch, {4, 4, 1}, zero_gate), whole);
  check_same_run(run_layer(config, batch, {4, 2, 2, true}, zero_gate), whole);
  // Experts without tokens get zero gradients, not garbage.
  const Tensor& up = whole.grads.at("experts.up.weight");
  Tensor others = up.slice(1, 8);
  CHECK(dot(others, others) == 0);
}

TEST_CASE("MoE layer: T < 0 is top-1 and T >= 1 top-2, bit for bit", "[moe]") {
  GlobalBatch batch = small_batch(50);
  for (DType type : {DType::f32, DType::bf16})
    for (std::string combine : {"raw", "renormalized"}) {
      auto run = [&](const std::string& policy, double threshold) {
        MoeLayerConfig config = small_layer(policy);
        config.moe.gate.threshold = threshold;
        config.moe.gate.combine = combine;
        return run_layer(config, batch, {1, 1, 1, false, type});
      };
      for (auto [policy, threshold] : {std::pair{"top1", -1e-9}, std::pair{"top2", 1.0}}) {
        INFO(policy << " " << combine << " " << name_of(type));
        LayerRun fixed = run(policy, 0), adaptive = run("adaptive", threshold);
        CHECK(same_bits(fixed.y, adaptive.y));
        CHECK(same_bits(fixed.dx, adaptive.dx));
        for (auto& [name, grad] : fixed.grads) CHECK(same_bits(grad, adaptive.grads.at(name)));
      }
    }
}

TEST_CASE("MoE layer: recomputation changes no bit and counts nothing twice", "[moe]") {
  GlobalBatch batch = small_batch(64);
  for (DType type : {DType::f32, DType::bf16})
    for (int micro_batches : {1, 2}) {
      LayerRun kept = run_layer(small_layer(), batch, {2, 2, micro_batches, false, type});
      LayerRun again = run_layer(small_layer(), batch, {2, 2, micro_batches, true, type});
      CHECK(same_bits(kept.y, again.y));
      CHECK(same_bits(kept.dx, again.dx));
      for (auto& [name, grad] : kept.grads) CHECK(same_bits(grad, again.grads.at(name)));
      CHECK(kept.routing[0].sums.assigned == again.routing[0].sums.assigned);
      CHECK(kept.routing[0].bytes_sent == again.routing[0].bytes_sent);
      CHECK(kept.routing[0].flops == again.routing[0].flops);
    }
}

TEST_CASE("MoE layer: the number of threads changes no bit", "[moe]") {
#ifdef _OPENMP
  GlobalBatch batch = small_batch(1500, 64);
  MoeLayerConfig config = small_layer();
  config.width = 64;
  config.hidden = 160;
  auto run_with = [&](int threads, DType type) {
    // Set on the rank's thread, which has its own team.
    return run_layer(config, batch, {1, 1, 1, false, type},
                     [=](const std::string&, Parameter&) { omp_set_num_threads(threads); });
  };
  for (DType type : {DType::f32, DType::bf16}) {
    INFO(name_of(type));
    LayerRun one = run_with(1, type), three = run_with(3, type);
    CHECK(same_bits(one.y, three.y));
    CHECK(same_bits(one.dx, three.dx));
    for (auto& [name, grad] : one.grads) {
      INFO(name);
      CHECK(same_bits(grad, three.grads.at(name)));
    }
  }
#endif
}

TEST_CASE("MoE layer: with one expert it is the dense feed-forward", "[moe]") {
  GlobalBatch batch = small_batch(31);
  for (DType type : {DType::f64, DType::f32})
    for (std::string policy : {"top1", "adaptive"})
      for (std::string combine : {"raw", "renormalized"})
        for (Activation activation : {Activation::gelu, Activation::relu, Activation::swiglu})
          for (bool bias : {true, false}) {
            INFO(name_of(type) << ", " << policy << ", " << combine << ", " << name_of(activation)
                               << (bias ? ", bias" : ""));
            MoeLayerConfig config = small_layer(policy, "none");
            config.activation = activation;
            config.bias = bias;
            config.moe.experts = 1;
            config.moe.gate.combine = combine;
            config.moe.balance.z_coefficient = 0;
            expect_dense(config, batch, type);
          }
}

TEST_CASE("MoE layer: bytes sent are those of the rows that leave", "[moe]") {
  MoeLayerConfig config = small_layer("top1", "none");
  GlobalBatch batch = small_batch(10);
  // Everything goes to expert 0 on rank 0: the other rank's 7 rows travel there and back.
  LayerRun run = run_layer(config, batch, {2, 2, 1, false, DType::bf16, {3, 7}}, zero_gate);
  CHECK(run.routing[0].rows_sent == 7);
  CHECK(run.routing[0].bytes_sent == 2 * 7 * 12 * 2);
  double expert = 2.0 * 12 * (10 + 10), gate = 2.0 * 12 * 8;
  CHECK(run.routing[0].flops == 10 * (expert + gate));
}

TEST_CASE("MoE layer: operations are those of the rows that experts see", "[moe]") {
  constexpr double kTokens = 10, kWidth = 12, kHidden = 10, kExperts = 8;
  for (Activation activation : {Activation::gelu, Activation::swiglu}) {
    INFO(name_of(activation));
    MoeLayerConfig config = small_layer("top2", "none");
    config.activation = activation;
    LayerRun run = run_layer(config, small_batch(10), {2, 2, 1});
    // A multiplication and an addition for each weight a row meets; swiglu has two of `up`.
    double matrices = activation == Activation::swiglu ? 3 : 2;
    CHECK(run.routing[0].flops ==
          2 * kTokens * kWidth * kExperts + 2 * kTokens * 2 * matrices * kWidth * kHidden);
  }
}

TEST_CASE("The scope micro_batch takes each micro-batch by itself", "[moe]") {
  GlobalBatch batch = small_batch(24);
  MoeLayerConfig config = small_layer("adaptive", "switch");
  config.moe.balance.scope = "micro_batch";
  LayerRun one = run_layer(config, batch, {1, 1, 2});
  LayerRun two = run_layer(config, batch, {2, 2, 2});  // ranks don't matter, micro-batches do
  check_same_run(two, one);
  // The losses' gradients alone are the mean of those of the halves.
  batch.cotangent.fill(0);
  one = run_layer(config, batch, {1, 1, 2});
  double sum = 0;
  Tensor gate = Tensor::zeros({12, 8}, DType::f64);
  for (int64_t half = 0; half < 2; ++half) {
    GlobalBatch part{batch.x.slice(12 * half, 12 * half + 12),
                     batch.cotangent.slice(12 * half, 12 * half + 12),
                     {}};
    LayerRun run = run_layer(config, part);
    sum += run.auxiliary / 2;
    for (int64_t i = 0; i < gate.numel(); ++i)
      gate.data<double>()[i] += run.grads.at("gate.weight").data<double>()[i] / 2;
  }
  CHECK(one.auxiliary == Approx(sum).epsilon(1e-12));
  CHECK(dot(gate, gate) > 0);
  check_close(one.grads.at("gate.weight"), gate, 1e-12);
}

TEST_CASE("The losses reach the gate even if no gradient reaches its weights", "[moe]") {
  BalanceConfig balance{.loss = "paper", .coefficient = 0.5, .z_coefficient = 0.1};
  Gate gate(12, 8, 0, {}, 0.3);
  ParameterStore store(gate, {.master = DType::f64, .compute = DType::f64, .allocate_grad = {}});
  store.initialize(1);
  store.clear_gradients();
  RoutingStep step(1, 8, balance);
  Tensor x = random_normal({9, 12}, 1), other = random_normal({9, 12}, 2);
  x.set_slot(std::make_shared<GradSlot>());
  other.set_slot(std::make_shared<GradSlot>());
  StepContext context{.routing = &step};
  Tape tape;
  Tensor root;
  {
    Recording on(tape);
    gate.forward(x, context, padded_rows(1, 9));
    Tensor indices = random_integers({9}, 3, 0, 1);
    for (int32_t i = 0; i < 9; ++i) indices.data<int32_t>()[i] = 8 - i;
    root = permute_rows(other, indices, indices);
  }
  step.end_forward(*make_self_communicator());
  tape.backward(root);
  const Tensor& grad = store.find("weight")->grad();
  CHECK(dot(grad, grad) > 0);
  REQUIRE(x.slot()->filled());
  CHECK(dot(x.slot()->value(), x.slot()->value()) > 0);
}

TEST_CASE("Experts that can't be split over the ranks are refused", "[moe]") {
  MoeLayerConfig config = small_layer();
  config.moe.experts = 3;
  CHECK_THROWS_WITH(run_layer(config, small_batch(4), {2, 2, 1}), Catch::Contains("3 experts"));
}

TEST_CASE("An observer sees every plan once", "[moe]") {
  struct Recorder : RoutingObserver {
    std::vector<int64_t> tokens, samples;  // by micro-batch
    void on_choice(int64_t layer, const RoutingChoice& choice) override {
      CHECK(layer == 0);
      CHECK(choice.selection.row_start.numel() == choice.rows.rows + 1);
      CHECK(choice.weight.numel() == choice.selection.expert.numel());
      RoutingSums sums = unpack_routing_sums(choice.sums.to_host<double>(), 8);
      CHECK(sums.tokens == static_cast<double>(choice.rows.rows));
      samples.push_back(choice.rows.sample_ids.data<int64_t>()[0]);
      tokens.push_back(choice.rows.rows);
    }
  } recorder, another;
  MoeLayerConfig config = small_layer();
  MoeLayer layer(config, make_self_mesh());
  ParameterStore store(layer, {});
  store.initialize(1);
  RoutingStep step(1, 8, config.moe.resolved_balance());
  step.observe(recorder);
  step.observe(another);
  step.begin(2);
  for (int pass = 0; pass < 2; ++pass) {
    for (int64_t m = 0; m < 2; ++m) {
      TokenRows rows = padded_rows(1, 4 + m);
      rows.sample_ids = Tensor::from(std::vector<int64_t>{70 + m}, {1});
      step.begin_micro_batch(m);
      layer.forward(random_normal({4 + m, 12}, 1).to(DType::f32), {.routing = &step}, rows);
    }
    if (pass == 0) step.reduce(*make_self_communicator());
  }
  CHECK(recorder.tokens == std::vector<int64_t>{4, 5});
  CHECK(another.tokens == recorder.tokens);
  CHECK(recorder.samples == std::vector<int64_t>{70, 71});
  RoutingReport report;
  step.end(*make_self_communicator());
  report.add(step);
  CHECK(report.layers()[0].sums.tokens == 9);
  CHECK_THAT(report.table(), Catch::Contains("1 expert"));
}

TEST_CASE("MoE layer: packed tokens get what they get in a padded batch", "[moe]") {
  const std::vector<int32_t> lengths = {3, 0, 5, 1};
  TokenRows padded = padded_rows(lengths, 5), packed = packed_rows(lengths);
  for (TokenRows* rows : {&padded, &packed}) set_addresses(*rows, std::vector<int64_t>{4, 9, 2, 7});
  for (const auto& entry : kGatingPolicies) {
    INFO(entry.name);
    MoeLayerConfig config = small_layer(std::string(entry.name));
    MoeLayer layer(config, make_self_mesh());
    ParameterStore store(layer, {.master = DType::f64, .compute = DType::f64});
    store.initialize(3);
    RoutingStep step(1, 8, config.moe.resolved_balance());
    auto run = [&](const Tensor& x, const TokenRows& rows) {
      step.begin(1);
      Tensor y = layer.forward(x, {.training = true, .seed = 11, .routing = &step}, rows);
      step.end(*make_self_communicator());
      return y;
    };
    Tensor x = random_normal({20, 12}, 1), real = Tensor::empty({9, 12}, DType::f64);
    auto take_real = [&](const Tensor& from, const Tensor& to) {
      for (int64_t i = 0, next = 0; i < 20; ++i) {
        if (!padded.mask.data<uint8_t>()[i]) continue;
        to.slice(next, next + 1).copy_from(from.slice(i, i + 1));
        ++next;
      }
    };
    take_real(x, real);
    Tensor expected = Tensor::empty({9, 12}, DType::f64);
    take_real(run(x, padded), expected);
    LayerRouting counted = step.layer(0);
    check_close(run(real, packed), expected, 1e-13);
    CHECK(step.layer(0).sums.assigned == counted.sums.assigned);
    CHECK(step.layer(0).sums.by_count == counted.sums.by_count);
    CHECK(step.layer(0).sums.tokens == 9);
  }
}

}  // namespace adagate::test
