// A tiny text, a configuration and a model trained with it, which tests of the program share.
#pragma once

#include <filesystem>
#include <string>

#include "tests/apps/program.h"
#include "tests/support/temp_folder.h"

namespace adagate::program {

inline constexpr const char* kConfig = R"(
data: {tokenizer: byte, train: TEXT, validation_share: 0.1}
model: {preset: modern, layers: 1, width: 16, heads: 2, context: 6}
moe: {experts: 2}
parallel: {threads: 1}
train:
  length: 30s
  batch: 8
  optimizer: {learning_rate: 3.0e-2}
  schedule: {warmup: 0s, decay: constant}
)";

// Token files, a configuration and, once asked for, a model trained with it on a text of documents
// "ab": it has to learn that b follows a, the end follows b, and a follows the end.
class Workshop {
 public:
  Workshop() {
    std::string lines;
    for (int i = 0; i < 200; ++i) lines += "ab\n";
    folder_.write("lines", lines);
    run("tokenize " + path("lines") + " --documents line --output " + path("text"));
    std::string config = kConfig;
    config.replace(config.find("TEXT"), 4, path("text"));
    folder_.write("run.yaml", config);
  }
  std::string path(const std::string& name) const { return folder_.path(name); }
  std::string read(const std::string& name) const { return folder_.read(name); }
  void write(const std::string& name, const std::string& text) const { folder_.write(name, text); }
  bool exists(const std::string& name) const { return std::filesystem::exists(path(name)); }
  // "train" with this configuration and the output directory of this name.
  std::string train(const std::string& output, const std::string& options = "") const {
    return "train " + path("run.yaml") + " --output " + path(output) + " " + options;
  }
  const std::string& model() {
    if (model_.empty()) {
      Outcome outcome = run(train("model", "--set train.evaluate_every=10s"));
      CAPTURE(outcome.output);
      REQUIRE(outcome.status == 0);
      model_ = path("model");
    }
    return model_;
  }

 private:
  TempFolder folder_;
  std::string model_;
};

inline Workshop& workshop() {
  static Workshop instance;
  return instance;
}

}  // namespace adagate::program
