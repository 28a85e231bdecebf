#include "train/config/run_config.h"

#include <algorithm>
#include <fmt/format.h>

#include "core/base/counted.h"

namespace adagate {
namespace {

class Problems {
 public:
  template <class... Args>
  void add_if(bool wrong, fmt::format_string<Args...> format, Args&&... args) {
    if (wrong) found_.push_back(fmt::format(format, std::forward<Args>(args)...));
  }
  std::vector<std::string> take() { return std::move(found_); }

 private:
  std::vector<std::string> found_;
};

void validate_model(const ModelConfig& m, Problems& problems) {
  problems.add_if(m.width % m.heads != 0,
                  "model.width is {}, but model.heads is {}: each head takes width/heads elements; "
                  "make width a multiple of heads, e.g. {}",
                  m.width, m.heads, (m.width / m.heads + 1) * m.heads);
  problems.add_if(m.kv_heads > 0 && m.heads % m.kv_heads != 0,
                  "model.kv_heads is {}, but model.heads is {}: each key/value head serves "
                  "heads/kv_heads heads; use a divisor of {}, or 0 for as many as heads",
                  m.kv_heads, m.heads, m.heads);
  problems.add_if(m.positions == "rotary" && m.width % m.heads == 0 && m.head_size() % 2 != 0,
                  "model.positions is rotary, but a head has {} elements (model.width {} / "
                  "model.heads {}): rotary positions turn pairs of elements; make it even",
                  m.head_size(), m.width, m.heads);
}

void validate_moe(const MoeConfig& moe, int64_t layers, Problems& problems) {
  if (moe.experts == 0) return;
  const GateConfig& gate = moe.gate;
  problems.add_if(moe.every > layers,
                  "moe.every is {}, but model.layers is {}: no block would hold experts; use at "
                  "most {}, or moe.experts: 0 for a dense model",
                  moe.every, layers, layers);
  const GatingPolicyEntry& policy = gating_policy_entry(gate.policy);
  std::string problem = policy.problem ? policy.problem(gate, moe.experts) : "";
  problems.add_if(!problem.empty(), "{}", problem);
  problems.add_if(moe.balance.loss == "paper" && moe.never_single() && moe.balance.coefficient > 0,
                  "moe.balance.loss is paper, but moe.gate.policy is {}{}{}: the paper's loss "
                  "counts only tokens with a single expert, of which there would be none; use "
                  "auto, switch or none",
                  gate.policy, policy.never_single_with.empty() ? "" : " with ",
                  policy.never_single_with);
}

void validate_parallel(const RunConfig& c, int ranks, Problems& problems) {
  int64_t expert = c.parallel.expert;
  problems.add_if(c.moe.experts == 0 && expert > 1,
                  "parallel.expert is {}, but moe.experts is 0: a dense model has no experts to "
                  "share; use parallel.expert: 1",
                  expert);
  if (c.moe.experts > 0 && c.moe.experts % expert != 0) {
    int64_t below = c.moe.experts / expert * expert, above = below + expert;
    std::string choice =
        below > 0 ? fmt::format("{} or {}", below, above) : fmt::format("{}", above);
    problems.add_if(true,
                    "moe.experts is {}, but parallel.expert is {}: each expert-parallel rank holds "
                    "experts/expert experts; use {} experts, or parallel.expert: 1",
                    c.moe.experts, expert, choice);
  }
  problems.add_if(
      ranks % expert != 0,
      "parallel.expert is {}, but the program runs on {}: expert-parallel groups are "
      "made of `expert` ranks each; start a multiple of {} ranks (mpirun -n {}), or set "
      "parallel.expert to a divisor of {}",
      expert, counted(ranks, "rank"), expert, (ranks / expert + 1) * expert, ranks);
  int64_t parts = ranks * c.train.accumulation;
  problems.add_if(
      c.train.batch < parts,
      "train.batch is {}, but {} with train.accumulation {} work on at least {} samples "
      "per step; raise train.batch to {} or start fewer ranks",
      c.train.batch, counted(ranks, "rank"), c.train.accumulation, parts, parts);
}

// Beyond these nothing can be counted, let alone trained. In double: integers would overflow.
void validate_sizes(const RunConfig& c, Problems& problems) {
  constexpr double kMostParameters = 1e15, kMostPairs = 9e18;
  const ModelConfig& m = c.model;
  auto width = static_cast<double>(m.width), vocabulary = static_cast<double>(m.vocabulary);
  auto expert = static_cast<double>(c.moe.expert_feed_forward > 0 ? c.moe.expert_feed_forward
                                                                  : m.feed_forward_width());
  double feed_forward = std::max(static_cast<double>(m.feed_forward_width()),
                                 expert * static_cast<double>(c.moe.experts));
  double parameters = static_cast<double>(m.layers) * width * (4 * width + 3 * feed_forward) +
                      2 * vocabulary * width;
  problems.add_if(parameters > kMostParameters,
                  "model.width is {}, model.layers {} and moe.experts {}: about {:.1e} parameters, "
                  "and more than {:.0e} cannot be counted; make one of them smaller",
                  m.width, m.layers, c.moe.experts, parameters, kMostParameters);
  auto context = static_cast<double>(m.context);
  double pairs = static_cast<double>(c.train.batch) * context * (context + 1) / 2;
  problems.add_if(pairs > kMostPairs,
                  "train.batch is {}, but model.context is {}: that is {:.1e} pairs of tokens in a "
                  "step, and more than {:.0e} cannot be counted; make one of them smaller",
                  c.train.batch, m.context, pairs, kMostPairs);
}

}  // namespace

std::vector<std::string> validate(const RunConfig& config, int ranks) {
  Problems problems;
  validate_model(config.model, problems);
  validate_moe(config.moe, config.model.layers, problems);
  validate_parallel(config, ranks, problems);
  validate_sizes(config, problems);
  problems.add_if(config.train.length.is_zero(),
                  "train.length is {}: there is nothing to train; give e.g. 2000s",
                  config.train.length.text());
  problems.add_if(config.train.optimizer.beta1 >= 1.0 || config.train.optimizer.beta2 >= 1.0,
                  "train.optimizer.beta1 and beta2 are {} and {}: both must be below 1",
                  config.train.optimizer.beta1, config.train.optimizer.beta2);
  problems.add_if(config.data.tokenizer.empty(),
                  "data.tokenizer is empty; use byte or the path of a tokenizer");
  problems.add_if(config.output.empty(), "output is empty; give the directory of this run");
  problems.add_if(config.checkpoint.resume.empty(),
                  "checkpoint.resume is empty; use none, auto or the directory of a checkpoint");
  problems.add_if(
      config.train.stop_at_loss > 0 && !config.data.has_validation(),
      "train.stop_at_loss is {}, but there is no validation data to measure the loss on; "
      "set data.validation or data.validation_share",
      config.train.stop_at_loss);
  problems.add_if(!config.data.validation.empty() && config.data.validation_share > 0,
                  "data.validation is {}, but data.validation_share is {}: set one of them",
                  config.data.validation, config.data.validation_share);
  return problems.take();
}

}  // namespace adagate
