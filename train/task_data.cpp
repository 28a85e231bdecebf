#include "train/task_data.h"

#include <algorithm>

#include "core/base/counted.h"
#include "train/config/run_config.h"

namespace adagate {

int64_t held_out_samples(const RunConfig& config, int64_t samples) {
  const DataConfig& data = config.data;
  int64_t held_out = std::max<int64_t>(
      1, static_cast<int64_t>(data.validation_share * static_cast<double>(samples)));
  check(held_out < samples,
        "data.validation_share is {}, but data.train, {}, has only {} of model.context {}: name "
        "a longer text, or another one with data.validation",
        data.validation_share, data.train, counted(samples, "sample"), config.model.context);
  return held_out;
}

SamplerConfig sampler_config(const RunConfig& config) {
  return {.seed = static_cast<uint64_t>(config.seed),
          .batch = {.size = config.train.batch, .drop_last = !config.data.keep_last_batch},
          .accumulation = config.train.accumulation,
          .shuffle = config.data.shuffle};
}

void check_vocabulary(RunConfig& config, const Tokenizer& tokenizer) {
  int64_t& vocabulary = config.model.vocabulary;
  check(vocabulary == 0 || vocabulary >= tokenizer.vocabulary_size(),
        "model.vocabulary is {}, the tokenizer {} has {} tokens: leave it 0 or raise it",
        vocabulary, config.data.tokenizer, tokenizer.vocabulary_size());
  if (vocabulary == 0) vocabulary = tokenizer.vocabulary_size();
}

}  // namespace adagate
