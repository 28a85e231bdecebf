// Trained models read from checkpoints, and what `inspect` says of a checkpoint.
#include "core/io/atomic_file.h"
#include "models/decoder.h"
#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"
#include "tests/train/watched_run.h"
#include "train/checkpoint_report.h"
#include "train/manifest.h"
#include "train/plan_report.h"
#include "train/saved_model.h"

namespace adagate {
namespace {

using namespace tiny;
namespace fs = std::filesystem;

RunConfig saving_config(const TempFolder& folder) {
  RunConfig config = run_config(folder);
  config.moe.experts = 4;
  config.data.validation_share = 0.4;  // samples 4 and 5
  config.train.evaluate_every = steps(3);
  config.checkpoint.save_at_end = true;
  return config;
}

}  // namespace

TEST_CASE("saved model: computes what the run's last evaluation did, by any name of it") {
  for (const char* precision : {"fp32", "bf16"}) {
    TempFolder folder;
    RunConfig config = saving_config(folder);
    config.precision = precision;
    config.checkpoint.every = steps(2);  // an older one lies beside
    config.model.vocabulary = 260;
    Watcher seen = watch(config);
    REQUIRE(seen.saved == std::vector<int64_t>{2, 3});
    auto data = samples_of(config.data.train, folder);
    fs::path run = config.output;
    for (const fs::path& path : {run, run / "checkpoints", run / "checkpoints" / step_name(3)}) {
      INFO(precision << ", " << path);
      CHECK(resolve_checkpoint(path) == run / "checkpoints" / step_name(3));
      SavedModel saved = load_model(path, "", make_self_mesh().world);
      CHECK(saved.manifest.state.step == 3);
      CHECK(saved.tokenizer->name() == "byte");
      CHECK(model_as<Decoder>(*saved.model).config().vocabulary == 260);
      CHECK(evaluate_range(*saved.model, *data, 4, 2).loss() == seen.evaluations.at(0).loss());
    }
    CHECK(resolve_checkpoint(run / "checkpoints" / step_name(2)) ==
          run / "checkpoints" / step_name(2));
    // Spread over two ranks, each with half of the experts.
    run_ranks(2, [&](std::shared_ptr<Communicator> world) {
      SavedModel saved = load_model(run, "", world);
      check(saved.mesh.expert_parallel() == 2, "experts are not shared");
      DatasetRange range(*data, 4, 2);
      EvaluationPass pass(range, 8, world->rank(), 2);
      double loss = evaluate(*saved.task, *saved.model, pass, saved.mesh, nullptr).loss();
      check(std::abs(loss - seen.evaluations.at(0).loss()) < 1e-5, "two ranks: a loss of {}", loss);
    });
  }
}

TEST_CASE("inspect: tells state, shards and parameters, and which shard is damaged") {
  TempFolder folder;
  run_ranks(2, [&](std::shared_ptr<Communicator> world) {
    RunConfig config = saving_config(folder);
    config.model.vocabulary = 257;
    config.parallel.expert = 2;
    Trainer(config, {.config_yaml = write_yaml(config)}, world).run();
  });
  RunConfig config = saving_config(folder);
  config.model.vocabulary = 257;
  fs::path checkpoint = resolve_checkpoint(config.output);
  std::string report = checkpoint_report(checkpoint).text;
  INFO(report);
  auto line_of = [](const std::string& text, const std::string& word) {
    size_t at = text.find(word);
    REQUIRE(at != std::string::npos);
    size_t begin = text.rfind('\n', at) + 1;
    return text.substr(begin, text.find('\n', at) - begin);
  };
  CHECK_THAT(line_of(report, "  step "), Catch::EndsWith(" 3"));
  CHECK_THAT(line_of(report, "  epoch "), Catch::EndsWith(" 1 (1 steps into it)"));
  CHECK_THAT(line_of(report, "samples, targets"), Catch::EndsWith(" 6, 48"));
  CHECK_THAT(line_of(report, "written by"), Catch::EndsWith(" 2 ranks, 2 expert-parallel"));
  CHECK_THAT(line_of(report, "tokenizer "), Catch::EndsWith(" byte"));
  CHECK_THAT(line_of(report, "moe.experts.up.weight"), Catch::Contains("f32") &&
                                                           Catch::Contains("[4, 8, 32]") &&
                                                           Catch::Contains("2 slices"));
  CHECK_THAT(line_of(report, "embedding.tokens"), Catch::Contains("[257, 8]"));
  int64_t parameters = planned_parameters(config).total;
  CHECK_THAT(report, Catch::Contains(fmt::format("{} parameters in all", parameters)));
  CHECK_THAT(line_of(report, shard_name(0, 2)), Catch::EndsWith("sound"));
  CHECK_THAT(line_of(report, shard_name(1, 2)), Catch::EndsWith("sound"));
  CHECK_THAT(report, Catch::EndsWith("configuration\n" + read_manifest(checkpoint).config_yaml));

  std::string name = (checkpoint / shard_name(1, 2)).string();
  std::string content = read_text_file(name, "shard");
  content[content.size() - 9] ^= 16;
  write_file_atomically(name, content);
  report = checkpoint_report(checkpoint).text;
  CHECK_THAT(line_of(report, shard_name(0, 2)), Catch::EndsWith("sound"));
  CHECK_THAT(line_of(report, shard_name(1, 2)), Catch::Contains("DAMAGED"));
}

}  // namespace adagate
