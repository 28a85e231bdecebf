// Everything one run is told: the root of the YAML file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/fields.h"
#include "core/optim/optimizer_config.h"
#include "models/model_config.h"
#include "moe/moe_config.h"
#include "train/config/duration.h"

namespace adagate {

struct ParallelConfig {
  int64_t expert = 1;
  int64_t threads = 0;        // 0: the cores of the machine over its ranks
  double timeout = 600;       // seconds; 0: none
  double start_timeout = 60;  // seconds; 0: none

  template <class V, class Self>
  static void visit(V& v, Self& s) {
    v.field("expert", s.expert,
            "ranks that share the experts of a layer; must divide the number of ranks and of "
            "experts; 1: every rank holds all experts",
            between(1, 65536));
    v.field("threads", s.threads,
            "OpenMP threads per rank; 0: the cores that the process may use (affinity, a "
            "container's CPU quota) / the ranks on the machine",
            between(0, 4096));
    v.field("timeout", s.timeout,
            "seconds without a sign of life from any rank after which those that wait give up and "
            "name the ones that they wait for; a rank at work shows it, however long it takes; 0: "
            "wait for ever",
            between(0.0, 1e9));
    v.field("start_timeout", s.start_timeout,
            "seconds for the ranks to start and to reach each other; 0: no bound",
            between(0.0, 1e9));
  }
};

struct DataConfig {
  std::string tokenizer = "byte";
  std::string train;
  std::string validation;
  double validation_share = 0.0;  // 0: none
  bool shuffle = true;
  int64_t prefetch = 2;
  bool keep_last_batch = true;

  bool has_validation() const { return !validation.empty() || validation_share > 0; }

  template <class V, class Self>
  static void visit(V& v, Self& s) {
    v.field(
        "tokenizer", s.tokenizer,
        "byte: one token per byte; else the path of a GPT-2 byte-level BPE: a tokenizer.json, or "
        "a folder with tokenizer.json, encoder.json + vocab.bpe, or vocab.json + merges.txt",
        a_path());
    v.field("train", s.train, "training data: a token file (adagate tokenize) or a text file",
            a_path());
    v.field("validation", s.validation,
            "validation data: a token file or a text file; empty: see validation_share", a_path());
    v.field("validation_share", s.validation_share,
            "share of the training data, its end, held out for validation; 0: none, then without "
            "validation there are no evaluations",
            between(0.0, 0.9));
    v.field("shuffle", s.shuffle,
            "each epoch takes the samples in an order drawn from (seed, epoch)");
    v.field("prefetch", s.prefetch, "batches read ahead of the step; 0: none", between(0, 1000));
    v.field("keep_last_batch", s.keep_last_batch,
            "an epoch ends with a smaller batch rather than dropping its last samples");
  }
};

struct ScheduleConfig {
  Duration warmup{100, Duration::Unit::steps};
  std::string decay = "cosine";
  double final_ratio = 0.1;
  std::string on_length_change = "rescale";

  template <class V, class Self>
  static void visit(V& v, Self& s) {
    v.field("warmup", s.warmup, "duration of the linear rise from 0 to the peak; 0s: none");
    v.field("decay", s.decay, "shape from the peak to the end of training",
            one_of({"cosine", "linear", "constant"}));
    v.field("final_ratio", s.final_ratio, "last learning rate over the peak (cosine, linear)",
            between(0.0, 1.0));
    v.field("on_length_change", s.on_length_change,
            "where a run goes on with another train.length; rescale: the schedule of the new "
            "length, whose rate may jump there; continue: the old schedule, at its last rate once "
            "it has ended; constant: the last step's rate; rewarm: from the last step's rate to "
            "the peak within warmup, then down to the new end",
            one_of({"rescale", "continue", "constant", "rewarm"}));
  }
};

struct TrainConfig {
  Duration length{2000, Duration::Unit::steps};
  int64_t batch = 8;
  int64_t accumulation = 1;
  std::string activation_checkpointing = "none";
  double stop_at_loss = 0.0;  // 0: off
  Duration evaluate_every{200, Duration::Unit::steps};
  int64_t evaluate_samples = 0;  // 0: all
  int64_t log_every = 10;
  double peak_gflops = 0.0;  // 0: unknown
  OptimizerConfig optimizer;
  ScheduleConfig schedule;

  template <class V, class Self>
  static void visit(V& v, Self& s) {
    v.field(
        "length", s.length,
        "duration of the training, as all durations in s (steps), t (tokens, with k, M or G) or "
        "e (epochs)");
    v.field("batch", s.batch, "samples per step, over all ranks and accumulation steps",
            between(1, 1000000000));
    v.field("accumulation", s.accumulation,
            "parts in which a rank works off its share of the batch, to save memory",
            between(1, 1000000));
    v.field("activation_checkpointing", s.activation_checkpointing,
            "block: keep only each block's input and compute the rest again in the backward pass",
            one_of({"none", "block"}));
    v.field("stop_at_loss", s.stop_at_loss,
            "end once the validation loss (nats per token) is at or below it; 0: off",
            at_least(0.0));
    v.field("evaluate_every", s.evaluate_every,
            "duration between evaluations, besides the one at the end; 0s: only that");
    v.field("evaluate_samples", s.evaluate_samples,
            "validation samples per evaluation, spread evenly over the data; 0: all", at_least(0));
    v.field("log_every", s.log_every,
            "steps between lines where the output is no terminal, five lines a second at most "
            "(metrics.jsonl has every step), and between norms of the parameters in metrics.jsonl",
            at_least(1));
    v.field("peak_gflops", s.peak_gflops,
            "GFLOP/s that all ranks could do at most in this precision, as adagate bench tells for "
            "one: metrics.jsonl then has the share of it; 0: unknown",
            at_least(0.0));
    v.section("optimizer", s.optimizer, "update rule");
    v.section("schedule", s.schedule, "learning rate over the training");
  }
};

struct CheckpointConfig {
  Duration every{500, Duration::Unit::steps};
  int64_t keep = 2;
  bool save_at_end = true;
  std::string resume = "none";
  std::string initial_weights;

  template <class V, class Self>
  static void visit(V& v, Self& s) {
    v.field("every", s.every, "duration between checkpoints; 0s: none on the way");
    v.field("keep", s.keep, "newest checkpoints kept; 0: all", at_least(0));
    v.field("save_at_end", s.save_at_end, "save when the training has ended");
    v.field("resume", s.resume,
            "none: start anew; auto: go on from the newest complete checkpoint in output, if any; "
            "else the directory of a checkpoint, or of a run for its newest one",
            a_path());
    v.field("initial_weights", s.initial_weights,
            "one safetensors file with every parameter by its global name, in place of random "
            "initial weights; empty: random",
            a_path());
  }
};

// Of the table of the tasks (train/task_table.h).
std::vector<std::string> names_of_tasks();
std::string help_of_tasks();

struct RunConfig {
  int64_t seed = 1;
  std::string task = "language_modelling";
  std::string device = "auto";
  std::string precision = "fp32";
  std::string output = "runs/default";
  std::string log_level = "info";
  ModelConfig model;
  MoeConfig moe;
  ParallelConfig parallel;
  DataConfig data;
  TrainConfig train;
  CheckpointConfig checkpoint;

  template <class V, class Self>
  static void visit(V& v, Self& s) {
    v.field("seed", s.seed, "of initial weights, data order, dropout and random routing",
            at_least(0));
    v.field("task", s.task, "what the model is trained for; " + help_of_tasks(),
            one_of(names_of_tasks()));
    v.field("device", s.device,
            "what computes; cuda: NVIDIA GPUs, one for each rank of a machine (ranks beyond their "
            "number share); auto: those where there are any, else the CPU",
            one_of({"auto", "cpu", "cuda"}));
    v.field("precision", s.precision,
            "bf16: matrix products in bfloat16, with fp32 master weights and gate",
            one_of({"fp32", "bf16"}));
    v.field("output", s.output, "directory of checkpoints, metrics.jsonl and the effective config",
            a_path());
    v.field("log_level", s.log_level, "least serious message shown",
            one_of({"debug", "info", "warning", "error"}));
    v.section("model", s.model, "the transformer");
    v.section("moe", s.moe, "Mixture of Experts in place of feed-forwards");
    v.section("parallel", s.parallel, "how ranks and threads share the work");
    v.section("data", s.data, "what is read");
    v.section("train", s.train, "the training loop");
    v.section("checkpoint", s.checkpoint, "saving and resuming");
  }
};

// What keys contradict each other or the number of ranks, one message each, naming the keys and a
// remedy; empty when the run is possible.
std::vector<std::string> validate(const RunConfig& config, int ranks);

}  // namespace adagate
