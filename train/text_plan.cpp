// What a text is, without tokenizing it.
#include <filesystem>
#include <unistd.h>

#include "core/base/counted.h"
#include "core/io/file_kind.h"
#include "data/text_input.h"
#include "data/token_file.h"
#include "train/text_data.h"

namespace adagate {
namespace {

FilePlan plan_text(const std::string& path, const Tokenizer& tokenizer) {
  check_text_file(path);
  FilePlan plan{.path = path, .bytes = static_cast<int64_t>(std::filesystem::file_size(path))};
  check(access(path.c_str(), R_OK) == 0, "{} may not be read by this user", path);
  plan.is_token_file = is_token_file(path);
  if (plan.is_token_file) {
    TokenFile file(path);
    file.view().check_tokenizer(tokenizer);
    plan.tokens = file.view().size();
    return plan;
  }
  std::string begin;
  TextInput(path).read(begin, 1);
  bool plain = file_kind(read_file_head(path)).form == FileForm::text;
  if (plain && tokenizer.name() == "byte") plan.tokens = plan.bytes + 1;  // and the end of the text
  return plan;
}

// -1: not known.
int64_t samples_of(const FilePlan& text, int64_t context) {
  if (text.tokens < 0) return -1;
  check(text.tokens >= 2, "{} holds {}, at least 2 are needed", text.path,
        counted(text.tokens, "token"));
  return TokenDataset::windows(text.tokens, context);
}

}  // namespace

DataPlan plan_text_data(const RunConfig& config, const Tokenizer& tokenizer) {
  const DataConfig& data = config.data;
  int64_t context = config.model.context;
  DataPlan plan;
  named("data.train", [&] {
    plan.train = plan_text(data.train, tokenizer);
    plan.samples = samples_of(plan.train, context);
  });
  if (!data.validation.empty()) {
    named("data.validation", [&] {
      plan.validation = plan_text(data.validation, tokenizer);
      plan.validation_samples = samples_of(*plan.validation, context);
    });
  } else if (data.validation_share > 0 && plan.samples >= 0) {
    plan.validation_samples = held_out_samples(config, plan.samples);
    plan.samples -= plan.validation_samples;
  }
  return plan;
}

}  // namespace adagate
