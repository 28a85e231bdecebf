#include "models/generation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/base/heartbeat.h"
#include "core/base/rng.h"

namespace adagate {
namespace {

void check_options(const SamplingOptions& o) {
  check(o.temperature >= 0, "temperature is {}, it must be 0 or more", o.temperature);
  check(o.top_k >= 0, "top-k is {}, it must be 0 (off) or more", o.top_k);
  check(o.top_p > 0 && o.top_p <= 1, "top-p is {}, it must be above 0 and at most 1", o.top_p);
}

}  // namespace

int32_t sample_token(std::vector<float> logits, const SamplingOptions& options, uint64_t position) {
  check_options(options);
  for (int32_t id : options.never) {
    logits.at(static_cast<size_t>(id)) = -std::numeric_limits<float>::infinity();
  }
  float highest = *std::max_element(logits.begin(), logits.end());
  check(std::isfinite(highest),
        "the model's output is not finite: its weights are damaged or the "
        "training has diverged");
  auto best = std::max_element(logits.begin(), logits.end());
  if (options.temperature == 0) return static_cast<int32_t>(best - logits.begin());

  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  if (options.top_k > 0 && options.top_k < static_cast<int64_t>(order.size())) {
    order.resize(static_cast<size_t>(options.top_k));
  }
  std::vector<double> weight(order.size());
  double total = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    double logit = logits[static_cast<size_t>(order[i])] - highest;
    total += weight[i] = std::exp(logit / options.temperature);
  }
  size_t kept = 0;
  double reached = 0;
  while (kept < order.size() && reached < options.top_p * total) reached += weight[kept++];

  double draw = reached * Rng(options.seed, RngStream::generate).uniform(position);
  for (size_t i = 0; i < kept; ++i) {
    draw -= weight[i];
    if (draw < 0) return order[i];
  }
  return order[std::max<size_t>(kept, 1) - 1];
}

std::vector<int32_t> generate(AutoregressiveModel& model, const std::vector<int32_t>& prompt,
                              const SamplingOptions& options,
                              const std::function<void(int32_t)>& on_token) {
  check_options(options);
  check(!prompt.empty(), "the prompt is empty: give at least one character");
  int64_t context = model.context();
  std::vector<int32_t> text = prompt, fresh;
  auto caches = model.make_caches();
  // Tokens of `text` from `fed` on have not been seen by the model yet.
  size_t fed = text.size() > static_cast<size_t>(context) ? text.size() - context : 0;
  while (static_cast<int64_t>(fresh.size()) < options.tokens) {
    beat();
    int64_t waiting = static_cast<int64_t>(text.size() - fed);
    if (caches.front().length + waiting > context) {
      caches = model.make_caches();
      fed = text.size() - static_cast<size_t>(std::max<int64_t>(1, context / 2));
      waiting = static_cast<int64_t>(text.size() - fed);
    }
    std::span<const int32_t> input(text.data() + fed, static_cast<size_t>(waiting));
    Tensor logits = model.step(Tensor::from(input, {waiting}), caches);
    fed = text.size();
    int32_t token = sample_token(logits.to_floats(), options, fresh.size());
    if (token == options.stop_token) break;
    text.push_back(token);
    fresh.push_back(token);
    if (on_token) on_token(token);
  }
  return fresh;
}

}  // namespace adagate
