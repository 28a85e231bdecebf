"""The faults that scripts/mutation_test.py plants, one at a time; each must turn a test red.

`find` occurs exactly once in `file`. `tests` is a regular expression of ctest names: those that
ought to notice. Faults with `sample` are tried in every run of scripts/test.sh, all of them with
--full.
"""
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    name: str
    file: str
    find: str
    replace: str
    tests: str
    sample: bool = False


FAULTS = [
    # The gate and what follows from it.
    Fault("adaptive gate: < for <= at the threshold", "core/ops/cpu/routing.cpp",
          "if (!(gap <= threshold)) break;", "if (!(gap < threshold)) break;", "^moe$", True),
    Fault("adaptive gate: ties go to the higher index", "core/ops/cpu/routing.cpp",
          "place > 0 && p[e] > p[chosen[place - 1]]", "place > 0 && p[e] >= p[chosen[place - 1]]",
          "^moe$"),
    Fault("padding tokens choose experts", "core/ops/cpu/routing.cpp",
          "if (!a.mask || a.mask[t]) {", "if (!a.mask || a.mask[t] < 2) {", "^moe$"),
    Fault("padding tokens enter the balance sums", "core/ops/cpu/routing.cpp",
          "    if (a.mask && !a.mask[t]) continue;\n    int32_t first",
          "    int32_t first", "^moe$"),
    Fault("routing weights: the renormalized form loses its coupling", "core/ops/cpu/routing.cpp",
          "dp[a.expert[i]] += (dweight[i] - mean) / sum;", "dp[a.expert[i]] += dweight[i] / sum;",
          "^(core|moe)$"),
    Fault("paper's balance loss counts all assignments", "moe/routing_step.cpp",
          'balance_.loss == "paper" ? sums.single', 'balance_.loss == "paper" ? sums.assigned',
          "^moe$"),
    Fault("balance loss: a dropped 1/T", "moe/routing_step.cpp",
          "value *= factor / sums.tokens;", "value *= factor;", "^moe$"),
    Fault("z-loss: gradient halved", "core/ops/cpu/routing.cpp",
          "T z = 2 * log_sum_exp[t]", "T z = log_sum_exp[t]", "^(core|moe)$"),

    # Dispatch, combine, exchange.
    Fault("dispatch: send and receive counts swapped in backward", "moe/dispatcher.cpp",
          "dx.add(exchange(dy, recv_rows, send_rows, *group));",
          "dx.add(exchange(dy, send_rows, recv_rows, *group));", "^moe"),
    Fault("dispatch: rows arrive in the order of the source's experts", "moe/dispatcher.cpp",
          "to_sorted[sorted] = static_cast<int32_t>(r);",
          "to_sorted[sorted] = static_cast<int32_t>(sorted);", "^moe"),
    Fault("combine: the last expert's weight is dropped in backward", "core/ops/cpu/permute.cpp",
          "combine_backward_row<T>(dy, rows + at, weight[i],",
          "combine_backward_row<T>(dy, rows + at, weight[a.row_start[t]],", "^(core|moe)$", True),
    Fault("gradient reducer: the last bucket is never posted", "parallel/gradient_reducer.cpp",
          "for (; to_post_ > 0 && missing_[to_post_ - 1] == 0; --to_post_) {",
          "for (; to_post_ > 1 && missing_[to_post_ - 1] == 0; --to_post_) {", "^parallel"),

    # Kernels.
    Fault("norm: the projection on x is dropped in backward", "core/ops/cpu/norm.cpp",
          "gamma + c) - mean_g - xhat * mean_gx)", "gamma + c) - mean_g)", "^core$"),
    Fault("a gradient overwrites where it should add", "core/ops/cpu/elementwise.cpp",
          "if (accumulate) value += lanes.load(y + begin + i);", "", "^core$"),
    Fault("dropout: survivors are not scaled up", "core/ops/dropout.h",
          "row_key + column * Rng::kRowStride) >= threshold ? scale : 0.0f",
          "row_key + column * Rng::kRowStride) >= threshold ? 1.0f : 0.0f", "^core$"),

    Fault("attention: a token sees the next one", "core/ops/cpu/attention.cpp",
          "first, key + n, static_cast<C>(kHidden)", "first, key + n - 1, static_cast<C>(kHidden)",
          "^core$"),
    Fault("cross-entropy: masked targets count", "core/ops/linear_cross_entropy.cpp",
          "if (target[r] == -1) continue;", "if (target[r] < -1) continue;", "^core$"),
    Fault("cross-entropy: each chunk overwrites the weight's gradient",
          "core/ops/linear_cross_entropy.cpp",
          "    dw.accumulate = true;\n", "", "^core$"),
    Fault("cross-entropy: no weight gradient without valid targets",
          "core/ops/linear_cross_entropy.cpp",
          "if (dw && !dw.accumulate && count == 0) dw.tensor.fill(0);\n", "", "^core$"),
    Fault("linear: the weight's gradient always overwrites", "core/ops/linear.cpp",
          "transposed(x), {dy}, to.accumulate", "transposed(x), {dy}, false", "^core$"),
    Fault("oneDNN: products of one shape share a primitive whether they add or not",
          "core/ops/cpu/matmul_onednn.cpp",
          "(p.accumulate << 2) |", "(0 << 2) |", "^core$"),
    Fault("experts without rows keep an old weight gradient", "core/ops/cpu/matmul.cpp",
          "  if (p.accumulate) return;\n", "  if (p.accumulate || p.trans_a) return;\n", "^core$"),
    Fault("experts' bias gradient: the first group's rows are lost", "core/ops/cpu/column_sum.cpp",
          "int64_t begin = p.offsets ? p.offsets[group] : 0;",
          "int64_t begin = p.offsets ? p.offsets[group] + (group == 0) : 0;", "^core$"),
    Fault("swiglu: gate and up change places", "core/ops/cpu/bias_activation.cpp",
          "put(lanes, dh, half + c, from_up, q.accumulate_dh);",
          "put(lanes, dh, half + c, from_gate, q.accumulate_dh);", "^core$"),
    Fault("gelu: the slope of its cubic term is off", "core/ops/activation_math.h",
          "S(3 * 0.044715 * kTwo)", "S(0.13 * kTwo)", "^core$"),

    # The step, over ranks and micro-batches.
    Fault("loss: a dropped 1/N of the other ranks", "train/training_step.cpp",
          "  mesh_.world->sum_in_place(std::span<int64_t>(counts));\n", "", "^train$", True),
    Fault("clip norm: experts of the other ranks are left out", "train/training_step.cpp",
          "dense + mesh_.expert->sum(expert)", "dense + expert", "^train"),
    Fault("expert gradients are summed over all ranks", "train/training_step.cpp",
          "ParameterGroup::expert, *mesh_.replica", "ParameterGroup::expert, *mesh_.world",
          "^train"),
    Fault("accumulation: each micro-batch overwrites", "train/training_step.cpp",
          "    sum += forward_backward(",
          "    store_.clear_gradients();\n    sum += forward_backward(", "^train"),
    Fault("dropout draws by the place on the rank", "train/training_step.cpp",
          "(batch.row_ids[row] << 32) + t", "(r << 32) + t", "^train"),
    Fault("an unmasked pad: one token more is real", "train/training_step.cpp",
          "mask[r * sequence + t] = t < batch", "mask[r * sequence + t] = t <= batch", "^train"),

    # The optimizer.
    Fault("AdamW: bias correction of the second moment is dropped", "core/optim/adamw.cpp",
          "1 / std::sqrt(1 - std::pow(config_.beta2, t))", "1.0", "^core$"),
    Fault("AdamW: norms and biases decay too", "core/optim/adamw.cpp",
          "s.decay ? 1 - learning_rate * config_.weight_decay : 1.0",
          "1 - learning_rate * config_.weight_decay", "^core$"),

    # Data.
    Fault("sampler: every epoch has the same order", "data/sampler.cpp",
          "shuffled_order(config_.seed, epoch, size_)", "shuffled_order(config_.seed, 0, size_)",
          "^data$"),
    Fault("going back: checkpoints of later steps stay", "train/trainer.cpp",
          "std::for_each(abandoned.rbegin(), abandoned.rend(), remove_checkpoint);", "",
          "^train$"),
    Fault("a stop forgets the evaluation that was due", "train/trainer.cpp",
          'evaluation_due_ ? "1" : "0"', '"0"', "^train$"),
    Fault("evaluation: every batch's decisions are kept", "train/evaluation.cpp",
          "routing->begin(pass.batches(), false);", "routing->begin(pass.batches());", "^train$"),
    Fault("sampler: a resumed run repeats a step", "data/sampler.cpp",
          "return {epoch, rest / config_.global_batch};",
          "return {epoch, (rest - 1) / config_.global_batch};", "^data$"),

    # Checkpoints and resuming.
    Fault("checkpoint: a skipped moment", "train/trainer.cpp",
          '    tensors.push_back({"adam_v", p, optimizer_->second_moment(*p)});\n', "",
          "^(train|faults_resume)$"),
    Fault("resume: AdamW counts its steps anew", "train/trainer.cpp",
          "optimizer_->set_steps(state_.step", "optimizer_->set_steps(0 * state_.step",
          "^(train|faults_resume)$"),
    Fault("resume: the epoch starts anew", "train/trainer.cpp",
          "data.position = {state_.epoch, state_.epoch_step};",
          "data.position = {state_.epoch, 0};", "^(train|faults_resume)$"),
    Fault("checkpoint: experts are stored at their local place", "train/checkpoint_layout.cpp",
          "rank, e * count, count});", "rank, 0, count});", "^train$", True),
    Fault("checkpoint: a damaged shard is not noticed", "train/checkpoint.cpp",
          "check(checksum_file(file) == shard.checksum,", "check(true,", "^train"),

    # Positions, heads and dropout.
    Fault("rotary: the gradient is turned the wrong way", "core/ops/cpu/attention_tiles.h",
          "const C low = factor * (from[i] * cosine[i] + from[i + half] * sine[i]);",
          "const C low = factor * (from[i] * cosine[i] - from[i + half] * sine[i]);", "^core$"),
    Fault("grouped-query: heads that share keys are interleaved", "core/ops/cpu/attention.cpp",
          "const int64_t head = unit_.kv_head * unit_.group + g;",
          "const int64_t head = unit_.kv_head + g * args_.kv_heads;", "^core$"),
    Fault("dropout: the same at every step", "layers/forward_context.h",
          "static_cast<uint64_t>(step), site)", "0, site)", "^models$"),
    Fault("dropout: the same in every block", "models/decoder.cpp",
          ".site = block_site(i)}", ".site = block_site(0)}", "^models$"),

    # Generation.
    Fault("generation: learned positions start anew with every token", "models/decoder.cpp",
          "embedding_->forward(tokens, n, start)", "embedding_->forward(tokens, n, 0)",
          "^models$"),
    Fault("generation: the context is forgotten one token early", "train/generation.cpp",
          "caches.front().length + waiting > context",
          "caches.front().length + waiting >= context", "^train$"),
    Fault("generation: top-p keeps a token too few", "train/generation.cpp",
          "reached < options.top_p * total) reached += weight[kept++];",
          "reached + weight[kept] < options.top_p * total) reached += weight[kept++];", "^train$"),

    # What the trainer passes on and shows.
    Fault("learning rate: that of the next step", "train/trainer.cpp",
          "learning_rate_->at(state_.step)", "learning_rate_->at(state_.step + 1)", "^train$"),
    Fault("trainer: the optimizer is built without its settings", "train/trainer.cpp",
          "std::make_unique<AdamW>(*store_, config_.train.optimizer)",
          "std::make_unique<AdamW>(*store_, OptimizerConfig{})", "^train$"),
    Fault("trainer: dropout ignores the run's seed", "train/trainer.cpp",
          "TrainingStepOptions{.seed = static_cast<uint64_t>(config_.seed),",
          "TrainingStepOptions{.seed = 1,", "^train$"),
    Fault("a step without a finite gradient is taken", "train/training_step.cpp",
          "result.skipped = !std::isfinite(result.grad_norm) || !std::isfinite(result.loss);",
          "result.skipped = false;", "^train$"),
    Fault("evaluation: dropout is on", "train/evaluation.cpp",
          "make_context(batch, 0, 0, false)", "make_context(batch, 0, 0, true)", "^train$"),
    Fault("metrics: experts per token counts tokens", "train/observer.cpp",
          "return layer.assignments();", "return layer.sums.tokens;", "^train$"),
    Fault("z-loss: the micro-batches' gradients are summed, not averaged", "moe/routing_step.cpp",
          "gradient.log_sum_exp_squared = micro_batch_share() * balance_",
          "gradient.log_sum_exp_squared = balance_", "^moe$"),
    Fault("norms decay", "layers/norm.h", ".init = Init::ones(), .decay = false,",
          ".init = Init::ones(),", "^models$"),
    Fault("prefetch: the newest batch first", "data/prefetch.cpp",
          "std::move(ready_.front());\n  ready_.pop_front();",
          "std::move(ready_.back());\n  ready_.pop_back();", "^data$"),
    Fault("bf16: cut off instead of rounded", "core/base/bfloat16.h",
          "(u + 0x7fffu + ((u >> 16) & 1u)) >> 16", "u >> 16", "^core$"),
    Fault("resume: every rank takes the first rank's experts", "train/checkpoint.cpp",
          "int64_t first = whole ? 0 : spec.shard_begin;", "int64_t first = 0;", "^train$"),
]
