#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "core/io/atomic_file.h"
#include "core/io/safetensors.h"
#include "core/nn/parameter_store.h"
#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"
#include "tests/support/toy_module.h"
#include "train/checkpoint.h"

using namespace adagate;
namespace fs = std::filesystem;

namespace {

struct ToyState {
  Toy model;
  ParameterStore store;
  std::vector<StateTensor> tensors;

  explicit ToyState(const Mesh& mesh, int64_t width = 3)
      : model(mesh, width), store(model, StoreOptions{}) {
    for (std::string kind : {"value", "adam_m", "adam_v"}) {
      for (Parameter* p : store.parameters()) {
        Tensor t = kind == "value" ? p->master() : Tensor::zeros(p->spec().shape, DType::f32);
        tensors.push_back(state_tensor(kind + "/" + p->name(), t, p->spec().shard));
      }
    }
  }

  // Every element of every tensor gets a value of its own, by its global place.
  static float expected(const StateTensor& t, int64_t i) {
    int64_t kind = kind_of(t.name) == "value" ? 1 : kind_of(t.name) == "adam_m" ? 2 : 3;
    auto name = static_cast<int64_t>(t.name.size() - kind_of(t.name).size() - 1);
    int64_t row = t.tensor.numel() / t.tensor.shape()[0];
    return static_cast<float>(kind * 10000 + name * 1000 + t.shard.begin * row + i);
  }
  void fill() {
    for (auto& t : tensors)
      for (int64_t i = 0; i < t.tensor.numel(); ++i) t.tensor.data<float>()[i] = expected(t, i);
  }
  bool matches() const {
    for (auto& t : tensors)
      for (int64_t i = 0; i < t.tensor.numel(); ++i)
        if (t.tensor.data<float>()[i] != expected(t, i)) return false;
    return true;
  }
};

fs::path fresh_directory(const std::string& name) {
  static const TempFolder folder;
  fs::path dir = folder.path() / name;
  fs::remove_all(dir);
  return dir;
}

void save_on(int ranks, int expert_parallel, const fs::path& dir, int64_t step, int64_t keep = 0) {
  run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
    Mesh mesh = make_mesh(world, expert_parallel);
    ToyState toy(mesh);
    toy.fill();
    save_checkpoint(dir, toy.tensors, {.step = step, .consumed_samples = 77}, "seed: 1\n", mesh,
                    keep);
  });
}

std::string load_error(const fs::path& path, int64_t width = 3) {
  try {
    Mesh mesh = make_self_mesh();
    ToyState toy(mesh, width);
    load_checkpoint(path, toy.tensors, mesh);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("checkpoint: written on one layout, read on every other, each value in its place") {
  std::vector<std::pair<int, int>> layouts{{1, 1}, {2, 1}, {2, 2}, {4, 1}, {4, 2}, {4, 4}};
  for (auto [from_ranks, from_expert] : layouts) {
    fs::path dir = fresh_directory("layouts");
    save_on(from_ranks, from_expert, dir, 12);
    for (auto [ranks, expert] : layouts) {
      INFO(from_ranks << "," << from_expert << " -> " << ranks << "," << expert);
      std::vector<int> good(static_cast<size_t>(ranks), 0);
      int expert_parallel = expert;
      run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
        Mesh mesh = make_mesh(world, expert_parallel);
        ToyState toy(mesh);
        Manifest m = load_checkpoint(dir / step_name(12), toy.tensors, mesh);
        good[static_cast<size_t>(world->rank())] =
            toy.matches() && m.state.step == 12 && m.state.consumed_samples == 77;
      });
      for (int ok : good) REQUIRE(ok == 1);
    }
  }
}

TEST_CASE("checkpoint: damaged ones are refused by shard, with the one before on offer") {
  fs::path dir = fresh_directory("damage");
  save_on(2, 2, dir, 10);
  auto damaged = [&](const std::function<void(fs::path)>& damage) {
    save_on(2, 2, dir, 20);
    REQUIRE(load_error(dir / step_name(20)).empty());
    damage(dir / step_name(20));
    std::string message = load_error(dir / step_name(20));
    INFO(message);
    CHECK(contains(message, "--resume=" + (dir / step_name(10)).string()));
    return message;
  };
  auto shard = [](const fs::path& p) { return p / shard_name(1, 2); };
  CHECK(contains(damaged([&](fs::path p) { fs::remove(shard(p)); }), shard_name(1, 2)));
  CHECK(
      contains(damaged([&](fs::path p) { fs::resize_file(shard(p), fs::file_size(shard(p)) - 3); }),
               "truncated"));
  CHECK(contains(damaged([&](fs::path p) {
                   std::fstream f(shard(p), std::ios::in | std::ios::out | std::ios::binary);
                   f.seekg(-5, std::ios::end);
                   char c = static_cast<char>(f.get() ^ 4);
                   f.seekp(-5, std::ios::end);
                   f.put(c);
                 }),
                 "checksum"));
  CHECK(contains(damaged([&](fs::path p) { fs::remove(p / kManifestFile); }), kManifestFile));
  CHECK(contains(damaged([&](fs::path p) {
                   fs::resize_file(p / kManifestFile, fs::file_size(p / kManifestFile) / 2);
                 }),
                 "damaged"));
}

TEST_CASE("checkpoint: a change of any byte, a cut anywhere is refused by the file's name") {
  // Every byte in the long form, every eleventh else.
  const char* full = std::getenv("ADAGATE_TEST_FULL");
  const size_t stride = full && std::string(full) == "1" ? 1 : 11;
  fs::path dir = fresh_directory("bytes");
  save_on(2, 2, dir, 10);
  fs::path good = dir / step_name(10), bad = dir / step_name(20);
  fs::copy(good, bad);
  for (const std::string& name : {shard_name(0, 2), shard_name(1, 2), std::string(kManifestFile)}) {
    std::string content = read_text_file(good / name, "file");
    auto expect_refusal = [&](const std::string& damaged, const std::string& what) {
      std::ofstream(bad / name, std::ios::binary) << damaged;
      std::string message = load_error(bad);
      INFO(name << ", " << what << ": " << message);
      REQUIRE(contains(message, (bad / name).string()));
      REQUIRE(contains(message, "--resume=" + good.string()));
    };
    for (size_t at = 0; at < content.size(); at += stride) {
      std::string flipped = content;
      flipped[at] = static_cast<char>(flipped[at] ^ 1 << at % 8);
      // White space between the entries says nothing.
      if (name != kManifestFile || !(std::isspace(content[at]) && std::isspace(flipped[at])))
        expect_refusal(flipped, fmt::format("byte {}", at));
      if (at / stride % 9 == 0) expect_refusal(content.substr(0, at), fmt::format("cut at {}", at));
    }
    expect_refusal(content.substr(0, content.size() - 1), "last byte");
    if (name != kManifestFile) expect_refusal(content + '\0', "one byte more");
    std::ofstream(bad / name, std::ios::binary) << content;
    REQUIRE(load_error(bad).empty());
  }
}

TEST_CASE("checkpoint: shards and manifest account for each other's tensors") {
  fs::path dir = fresh_directory("account");
  save_on(1, 1, dir, 5);
  fs::path shard = dir / step_name(5) / shard_name(0, 1);
  // Written again with other tensors, and the manifest made to fit the file.
  auto error_with = [&](const std::function<void(std::vector<NamedTensor>&)>& change) {
    save_on(1, 1, dir, 5);
    std::vector<NamedTensor> tensors;
    {
      SafetensorsFile file(shard);
      for (auto& [name, entry] : file.tensors()) tensors.push_back({name, file.read(name)});
    }
    change(tensors);
    Manifest manifest = read_manifest(dir / step_name(5));
    manifest.shards[0].checksum = write_safetensors(shard, tensors, {});
    manifest.shards[0].bytes = static_cast<int64_t>(fs::file_size(shard));
    write_file_atomically(dir / step_name(5) / kManifestFile, manifest_to_json(manifest));
    return load_error(dir / step_name(5));
  };
  CHECK(error_with([](auto&) {}).empty());
  std::string error = error_with([](auto& all) { all.pop_back(); });
  CHECK(contains(error, "has no tensor value/vector"));
  error = error_with([](auto& all) { all.push_back({"value/other", all.back().tensor}); });
  CHECK(contains(error, "has the tensor value/other, which the manifest does not name"));
  error = error_with([](auto& all) { all.back().tensor = all.back().tensor.slice(0, 6); });
  CHECK(contains(error, "value/vector is F32 [6], the manifest says f32 [7]"));
  error = error_with([](auto& all) { all.back().tensor = all.back().tensor.to(DType::f64); });
  CHECK(contains(error, "value/vector is F64 [7], the manifest says f32 [7]"));
}

TEST_CASE("checkpoint: another model's is refused") {
  fs::path dir = fresh_directory("foreign");
  save_on(1, 1, dir, 5);
  std::string message = load_error(dir / step_name(5), 4);
  INFO(message);
  REQUIRE(contains(message, "dense"));
  REQUIRE(contains(message, "another model"));
  // One tensor more in the model, one more in the checkpoint.
  ToyState more(make_self_mesh()), less(make_self_mesh());
  more.tensors.push_back(state_tensor("adam_x/vector", more.tensors[1].tensor));
  auto load = [&](ToyState& toy) {
    load_checkpoint(dir / step_name(5), toy.tensors, make_self_mesh());
  };
  CHECK_THROWS_WITH(load(more), Catch::Contains("has no tensor adam_x/vector") &&
                                    Catch::Contains("another model"));
  less.tensors.erase(less.tensors.begin() + 1);
  CHECK_THROWS_WITH(load(less), Catch::Contains("has the tensor value/vector, the model does not"));
  REQUIRE(contains(load_error(dir / "step-00000999"), "does not exist"));
  REQUIRE(contains(load_error(fs::temp_directory_path()), "no complete checkpoint"));
}

TEST_CASE("checkpoint: keeps the newest, ignores and cleans what a killed run left") {
  fs::path dir = fresh_directory("keep");
  for (int64_t step : {1, 2, 3, 4}) save_on(2, 1, dir, step, 2);
  REQUIRE_FALSE(fs::exists(dir / step_name(2)));
  REQUIRE(fs::exists(dir / step_name(3)));
  fs::create_directories(dir / ".step-00000005.tmp");
  fs::create_directories(dir / step_name(6));  // no manifest: killed while it was removed
  REQUIRE(find_latest(dir) == dir / step_name(4));
  REQUIRE(find_latest(dir, 4) == dir / step_name(3));
  REQUIRE_FALSE(find_latest(dir / "absent"));
  save_on(2, 1, dir, 7, 2);
  REQUIRE_FALSE(fs::exists(dir / ".step-00000005.tmp"));
  REQUIRE_FALSE(fs::exists(dir / step_name(6)));
  // The same step again takes the old one's place.
  save_on(2, 1, dir, 7, 2);
  REQUIRE(load_error(dir / step_name(7)).empty());
}

TEST_CASE("checkpoint: what was saved just now is kept, whatever lies there") {
  fs::path dir = fresh_directory("back");
  for (int64_t keep : {1, 2, 3}) {
    fs::remove_all(dir);
    for (int64_t step : {5, 6, 7, 8}) save_on(1, 1, dir, step);
    save_on(1, 1, dir, 3, keep);
    INFO("keep " << keep);
    CHECK(load_error(dir / step_name(3)).empty());
  }
}

TEST_CASE("checkpoint: a failed save leaves the old ones and nothing partial, on all ranks alike") {
  fs::path dir = fresh_directory("unwritable");
  save_on(2, 2, dir, 1);
  write_file_atomically(dir / ".step-00000002.tmp.blocker", "x");
  fs::path under_a_file = dir / ".step-00000002.tmp.blocker" / "checkpoints";
  int failures = 0;
  run_ranks(2, [&](std::shared_ptr<Communicator> world) {
    Mesh mesh = make_mesh(world, 2);
    ToyState toy(mesh);
    std::string message;
    try {
      save_checkpoint(under_a_file, toy.tensors, {.step = 2}, "", mesh, 1);
    } catch (const Error& e) {
      message = e.what();
    }
    int64_t failed = contains(message, "not saved") ? 1 : 0;
    int64_t all = world->sum(failed);
    if (world->rank() == 0) failures = static_cast<int>(all);
  });
  REQUIRE(failures == 2);
  REQUIRE(load_error(dir / step_name(1)).empty());
}
