#include "train/evaluation_data.h"

#include "parallel/agree.h"
#include "train/resume.h"

namespace adagate {
namespace fs = std::filesystem;
namespace {

// A token file of this content in the run's cache; empty: none.
std::string kept_tokens(const fs::path& run, const std::string& hash) {
  std::error_code error;
  if (hash.empty()) return "";
  for (const auto& entry : fs::directory_iterator(run / "cache", error)) {
    if (entry.path().extension() != ".tokens") continue;
    try {
      TokenFile file(entry.path().string());
      if (hash_text(file.view().payload_hash()) == hash) return entry.path().string();
    } catch (const Error&) {
      // A damaged one is none.
    }
  }
  return "";
}

}  // namespace

RunData open_evaluation_data(const SavedModel& saved, const fs::path& cache) {
  Communicator& world = *saved.mesh.world;
  check(saved.config.data.has_validation(),
        "the run had no validation data: name some with --data");
  RunConfig config = saved.config;
  bool apart = !config.data.validation.empty();
  std::string& path = apart ? config.data.validation : config.data.train;
  const RunRecord& record = saved.record;
  const std::string& hash = apart ? record.validation_hash : record.data_hash;
  std::string kept;
  on_all_ranks(world, [&] { kept = kept_tokens(saved.run, hash); });
  if (!kept.empty()) path = kept;
  RunData data;
  try {
    DataCache by_node{.folder = cache, .shared = CacheShared::by_node};
    data = saved.task->data.open_validation(config, *saved.tokenizer, by_node, world);
  } catch (const Error& error) {
    fail("{}; {}name the text to evaluate on with --data", error.what(),
         apart ? "" : "its end is what the run was evaluated on: ");
  }
  on_all_ranks(world, [&] {
    check(hash.empty() || (apart ? data.validation_hash : data.train_hash) == hash,
          "{} is {}, whose text is not the one that the run was evaluated on: name that with "
          "--data, or this one, to take it all the same",
          apart ? "data.validation" : "data.train", path);
  });
  return data;
}

}  // namespace adagate
