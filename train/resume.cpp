#include "train/resume.h"

#include <algorithm>
#include <charconv>
#include <fmt/ranges.h>
#include <iterator>
#include <sstream>

#include "train/config/yaml_loader.h"

namespace adagate {
namespace fs = std::filesystem;
namespace {

std::string text_in(const TrainingState& state, const std::string& name) {
  auto it = state.extra.find(name);
  return it == state.extra.end() ? "" : it->second;
}

template <class T>
T number_in(const TrainingState& state, const std::string& name) {
  std::string text = text_in(state, name);
  const char *begin = text.data(), *end = begin + text.size();
  T value = 0;
  auto [stop, error] = std::from_chars(begin, end, value);
  check(!text.empty() && error == std::errc() && stop == end,
        "resume: the checkpoint's manifest has no number {}: it is damaged, or no training run "
        "wrote it",
        name);
  return value;
}

// "12 13 12"; none where the state has no such text.
std::vector<int64_t> wholes_in(const TrainingState& state, const std::string& name) {
  std::istringstream words(text_in(state, name));
  return {std::istream_iterator<int64_t>(words), {}};
}

int64_t whole_in(const TrainingState& state, const std::string& name) {
  return number_in<int64_t>(state, name);
}

ScheduleSpan schedule_in(const TrainingState& state) {
  if (state.extra.count("schedule_end") == 0) return {};
  return {.first = whole_in(state, "schedule_first"),
          .from = number_in<double>(state, "schedule_from"),
          .end = whole_in(state, "schedule_end"),
          .held = whole_in(state, "schedule_held") != 0};
}

// "a, b" of one member of each change.
template <class F>
std::string listed(const std::vector<ConfigChange>& changes, std::string_view separator, F&& text) {
  std::vector<std::string> texts;
  for (const ConfigChange& change : changes) texts.push_back(text(change));
  return fmt::format("{}", fmt::join(texts, separator));
}

// "train.batch is 4, seed is 2, but the run that saved CHECKPOINT had 2, 1".
std::string contrast(const std::vector<ConfigChange>& changes, const fs::path& checkpoint) {
  auto now = [](const ConfigChange& c) { return fmt::format("{} is {}", c.key, c.now); };
  auto then = [](const ConfigChange& c) { return c.before; };
  return fmt::format("{}, but the run that saved {} had {}", listed(changes, ", ", now),
                     checkpoint.string(), listed(changes, ", ", then));
}

constexpr const char* kOrder = "data/order";
constexpr std::string_view kTokens = "tokens";  // what batches are counted in, else samples

// Room for the order that a checkpoint holds; none where it holds none.
Tensor stored_order(const Manifest& manifest) {
  auto stored = manifest.tensors.find(kOrder);
  if (stored == manifest.tensors.end()) return {};
  check(stored->second.shape.rank() == 1, "{} has the shape {}: it is no order of samples", kOrder,
        stored->second.shape);
  return Tensor::zeros(stored->second.shape, DType::i64);
}

}  // namespace

StateTensor order_state(Tensor order) {
  return state_tensor(kOrder, std::move(order));
}

std::string hash_text(uint64_t hash) {
  return fmt::format("{:016x}", hash);
}

void RunRecord::write(TrainingState& state) const {
  state.extra["seed"] = std::to_string(seed);
  state.extra["dataset_size"] = std::to_string(dataset_size);
  state.extra["global_batch"] = std::to_string(batch.size);
  if (batch.unit == BatchRule::Unit::tokens) {
    state.extra["batch_unit"] = kTokens;
    state.extra["epoch_steps"] = fmt::format("{}", fmt::join(epoch_steps, " "));
  }
  state.extra["skipped_steps"] = std::to_string(skipped_steps);
  state.extra["skipped_in_a_row"] = std::to_string(skipped_in_a_row);
  state.extra["evaluation_due"] = evaluation_due ? "1" : "0";
  state.extra["data_hash"] = data_hash;
  state.extra["validation_hash"] = validation_hash;
  state.extra["tokenizer"] = tokenizer;
  state.extra["tokenizer_hash"] = tokenizer_hash;
  state.extra["schedule_first"] = std::to_string(schedule.first);
  state.extra["schedule_from"] = fmt::format("{}", schedule.from);
  state.extra["schedule_end"] = std::to_string(schedule.end);
  state.extra["schedule_held"] = schedule.held ? "1" : "0";
  if (!own_task.empty()) state.extra["task"] = own_task;
}

RunRecord RunRecord::read(const TrainingState& state) {
  return {.seed = whole_in(state, "seed"),
          .dataset_size = whole_in(state, "dataset_size"),
          .batch = {.unit = text_in(state, "batch_unit") == kTokens ? BatchRule::Unit::tokens
                                                                    : BatchRule::Unit::samples,
                    .size = whole_in(state, "global_batch")},
          .epoch_steps = wholes_in(state, "epoch_steps"),
          .skipped_steps = whole_in(state, "skipped_steps"),
          // Earlier versions saved none.
          .skipped_in_a_row =
              text_in(state, "skipped_in_a_row").empty() ? 0 : whole_in(state, "skipped_in_a_row"),
          .evaluation_due = text_in(state, "evaluation_due") == "1",
          .data_hash = text_in(state, "data_hash"),
          .validation_hash = text_in(state, "validation_hash"),
          .tokenizer = text_in(state, "tokenizer"),
          .tokenizer_hash = text_in(state, "tokenizer_hash"),
          .schedule = schedule_in(state),
          .own_task = text_in(state, "task")};
}

SavedRun open_saved_run(const fs::path& checkpoint, const RunConfig& config,
                        const Tokenizer& tokenizer, const Task& task) {
  Manifest manifest = read_manifest(checkpoint);
  // The tensors alone would not show that their numbers stand for other tokens.
  std::string hash = text_in(manifest.state, "tokenizer_hash");
  check(
      hash == hash_text(tokenizer.hash()),
      "{} was trained with another tokenizer ({}, hash {}) than data.tokenizer {} (hash {}): name "
      "that one, or start anew in another --output",
      checkpoint.string(), text_in(manifest.state, "tokenizer"), hash, config.data.tokenizer,
      hash_text(tokenizer.hash()));
  ConfigTree tree;
  tree.add_text(manifest.config_yaml, (checkpoint / "manifest.json").string());
  SavedRun saved{.checkpoint = checkpoint,
                 .config_yaml = manifest.config_yaml,
                 .config = read_config<RunConfig>(tree),
                 .state = manifest.state,
                 .record = RunRecord::read(manifest.state),
                 .order = stored_order(manifest)};
  int64_t& vocabulary = saved.config.model.vocabulary;
  if (vocabulary == 0) vocabulary = tokenizer.vocabulary_size();
  auto other = with_role(KeyRole::identity, config_changes(saved.config, config, {}));
  check(other.empty(), "{}: resume with that, or start anew in another --output",
        contrast(other, checkpoint));
  check_task(saved.record, saved.config, task, checkpoint);
  return saved;
}

void check_task(const RunRecord& record, const RunConfig& config, const Task& task,
                const fs::path& checkpoint) {
  const std::string& saved = record.own_task.empty() ? config.task : record.own_task;
  check(saved == task.name,
        "{} was trained for the task {}, not {}: go on or read it with that, or start anew in "
        "another --output",
        checkpoint.string(), saved, task.name);
}

void restore_position(const SavedRun& saved, const RunConfig& config, const std::string& data_hash,
                      DataLoader& loader) {
  const RunRecord& record = saved.record;
  check(record.data_hash.empty() || record.data_hash == data_hash,
        "data.train is {}, whose text is not the one that the saved run was trained on: resume "
        "on the same data, or start anew in another --output",
        config.data.train);
  DataState data = loader.state();
  data.position = {saved.state.epoch, saved.state.epoch_step};
  data.seed = static_cast<uint64_t>(record.seed);
  data.dataset_size = record.dataset_size;
  data.batch = record.batch;
  data.epoch_steps = record.epoch_steps;
  if (saved.order) {
    const auto* order = saved.order.data<int64_t>();
    data.order.assign(order, order + saved.order.numel());
  }
  loader.restore(data);
}

std::vector<ConfigChange> allowed_changes(const SavedRun& saved, const RunConfig& config,
                                          const StepSizes& sizes,
                                          const std::string& validation_hash,
                                          const AllowedChanges& allowed) {
  auto changes = config_changes(saved.config, config, sizes);
  // The text of an evaluation counts, not its place; a saved run of an earlier version tells no
  // more than the place.
  if (!saved.record.validation_hash.empty() && !validation_hash.empty()) {
    constexpr const char* kKey = "data.validation";
    bool same = saved.record.validation_hash == validation_hash;
    auto at = std::find_if(changes.begin(), changes.end(),
                           [&](const ConfigChange& change) { return change.key == kKey; });
    if (at == changes.end() && !same)
      changes.push_back({kKey, "another text", config.data.validation});
    if (at != changes.end() && same) at->role = KeyRole::harmless;
  }
  auto refused = with_role(KeyRole::computation, changes);
  std::erase_if(refused, [&](const ConfigChange& change) { return allowed.covers(change.key); });
  check(refused.empty(),
        "{}: go on with that, allow the change with {}, or start anew in another --output or with "
        "--overwrite",
        contrast(refused, saved.checkpoint), listed(refused, " ", [](const ConfigChange& change) {
          return "--allow-change " + change.key;
        }));
  return changes;
}

}  // namespace adagate
