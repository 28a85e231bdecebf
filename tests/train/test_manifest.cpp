// Manifests whose checksum is right and whose content is not: what a faulty writer would leave.
#include <nlohmann/json.hpp>

#include "core/io/safetensors.h"
#include "tests/support/catch.h"
#include "train/checkpoint_layout.h"
#include "train/manifest.h"

namespace adagate {
namespace {

using nlohmann::json;

// Two shards; a matrix of which each holds a part, and a scalar.
Manifest two_shards() {
  Manifest m;
  m.state = {.step = 7, .epoch = 2, .epoch_step = 1, .consumed_samples = 30, .consumed_tokens = 99};
  m.state.extra = {{"seed", "4"}};
  m.config_yaml = "seed: 4\n";
  m.ranks = 2;
  m.expert_parallel = 2;
  m.shards = {{"first", 100, 0xfedcba9876543210u}, {"second", 200, 1}};
  m.tensors["value/a"] = {{4, 3}, DType::f32, {{0, 0, 1, "a@0"}, {1, 1, 3, "a@1"}}};
  m.tensors["value/b"] = {{}, DType::bf16, {{1, 0, 1, "b"}}};
  return m;
}

// The manifest with something changed and its checksum made right again.
std::string resealed(const std::function<void(json&)>& change) {
  json root = json::parse(manifest_to_json(two_shards()));
  change(root);
  root.erase("checksum");
  std::string text = root.dump();
  root["checksum"] = fmt::format("{:016x}", checksum_bytes(text));
  return root.dump(1);
}

std::string error_of(const std::function<void(json&)>& change) {
  try {
    manifest_from_json(resealed(change), "m.json");
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("manifest: what is written is read back") {
  Manifest m = manifest_from_json(resealed([](json&) {}), "m.json");
  CHECK(manifest_to_json(m) == manifest_to_json(two_shards()));
  CHECK(m.state.consumed_tokens == 99);
  CHECK(m.shards[0].checksum == 0xfedcba9876543210u);
  CHECK(m.tensors.at("value/a").shape == Shape{4, 3});
  CHECK(m.tensors.at("value/a").slices[1].begin == 1);
  // Other cuts than along the first dimension.
  for (int cut : {1, Shard::kElements}) {
    Manifest other = two_shards();
    StoredTensor& a = other.tensors["value/a"];
    a.cut = cut;
    a.slices.back().count = extent_of(a.shape, cut) - 1;
    StoredTensor read = manifest_from_json(manifest_to_json(other), "m.json").tensors["value/a"];
    CHECK(read.cut == cut);
    CHECK(read.slices.back().count == a.slices.back().count);
  }
  // The first version had no checksum.
  json old = json::parse(manifest_to_json(m));
  old["version"] = 1;
  old.erase("checksum");
  CHECK(manifest_from_json(old.dump(), "m.json").state.step == 7);
}

TEST_CASE("manifest: shards lie beside it") {
  for (const char* file : {"../first", "/tmp/first", "a/b", "./first"}) {
    INFO(file);
    CHECK(error_of([&](json& m) { m["shards"][1]["file"] = file; }) ==
          "m.json: a shard lies outside the directory");
  }
}

TEST_CASE("manifest: numbers are whole, not negative and no larger than an int64") {
  std::vector<json::json_pointer> numbers;
  for (const char* key : {"/step", "/epoch", "/epoch_step", "/consumed_samples", "/consumed_tokens",
                          "/ranks", "/expert_parallel", "/shards/0/bytes",
                          "/tensors/value~1a/shape/1", "/tensors/value~1a/slices/0/shard",
                          "/tensors/value~1a/slices/0/begin", "/tensors/value~1a/slices/0/count"})
    numbers.emplace_back(key);
  for (const auto& at : numbers) {
    INFO(at.to_string());
    REQUIRE(json::parse(resealed([](json&) {})).contains(at));
    CHECK_THAT(error_of([&](json& m) { m[at] = -1; }), Catch::EndsWith("a number is negative"));
    CHECK_THAT(error_of([&](json& m) { m[at] = 1.5; }), Catch::EndsWith("a number is not whole"));
    CHECK_THAT(error_of([&](json& m) { m[at] = 1e30; }), Catch::EndsWith("is not whole"));
    CHECK_THAT(error_of([&](json& m) { m[at] = "1"; }), Catch::EndsWith("is not whole"));
    CHECK_THAT(error_of([&](json& m) { m[at] = uint64_t{1} << 63; }), Catch::EndsWith("too large"));
    auto gone = [&](json& m) { m[at.parent_pointer()].erase(at.back()); };
    if (at.back() != "1") CHECK_THAT(error_of(gone), Catch::Contains("the manifest is damaged"));
  }
}

TEST_CASE("manifest: slices cover a tensor once, from its start to its end") {
  auto error_with = [](const json& slices) {
    return error_of([&](json& m) {
      json& stored = m["tensors"]["value/a"]["slices"];
      stored = json::array();
      for (const json& s : slices)
        stored.push_back({{"shard", s[0]}, {"begin", s[1]}, {"count", s[2]}, {"key", "k"}});
    });
  };
  auto ends = [](const char* text) { return Catch::EndsWith(text); };
  CHECK(error_with({{0, 0, 4}}).empty());
  CHECK(error_with({{1, 0, 2}, {0, 2, 2}}).empty());
  CHECK_THAT(error_with(json::array()), ends("slices don't cover the tensor"));
  CHECK_THAT(error_with(json::array({{0, 0, 3}})), ends("slices don't cover the tensor"));
  CHECK_THAT(error_with(json::array({{0, 0, 5}})), ends("slices don't cover the tensor"));
  CHECK_THAT(error_with({{0, 0, 1}, {1, 2, 2}}), ends("slices leave a hole or overlap"));
  CHECK_THAT(error_with({{0, 0, 2}, {1, 1, 3}}), ends("slices leave a hole or overlap"));
  CHECK_THAT(error_with({{0, 0, 0}, {1, 0, 4}}), ends("slices leave a hole or overlap"));
  CHECK_THAT(error_with({{0, 0, 4}, {1, 4, INT64_MAX}}), ends("slices don't fit the tensor"));
  CHECK_THAT(error_with({{0, 0, 1}, {2, 1, 3}}), ends("a slice names shard 2 of 2"));
}

TEST_CASE("manifest: other kinds of damage are named") {
  CHECK_THAT(error_of([](json& m) { m["version"] = 4; }), Catch::Contains("up to 3"));
  CHECK_THAT(error_of([](json& m) { m["version"] = 0; }), Catch::Contains("it has version 0"));
  CHECK_THAT(error_of([](json& m) { m["format"] = "other"; }), Catch::Contains("not an adagate"));
  CHECK_THAT(error_of([](json& m) { m["tensors"]["value/a"]["dtype"] = "f16"; }),
             Catch::EndsWith("unknown element type f16"));
  for (auto [cut, message] : {std::pair<json, const char*>{2, "cut along dimension 2"},
                              {-1, "a number is negative"},
                              {"rows", "a number is not whole"}})
    CHECK_THAT(error_of([&](json& m) { m["tensors"]["value/a"]["cut"] = cut; }),
               Catch::EndsWith(message));
  for (auto change : std::vector<std::function<void(json&)>>{
           [](json& m) { m["extra"]["seed"] = 4; }, [](json& m) { m.erase("extra"); },
           [](json& m) { m["config"] = 4; }, [](json& m) { m.erase("config"); },
           [](json& m) { m["shards"][0]["xxh3"] = "no number"; },
           [](json& m) { m["shards"][0].erase("file"); }, [](json& m) { m.erase("tensors"); },
           [](json& m) { m["tensors"]["value/a"].erase("slices"); },
           [](json& m) { m["tensors"]["value/a"]["slices"][0].erase("key"); }})
    CHECK_THAT(error_of(change), Catch::Contains("m.json: the manifest is damaged"));
}

}  // namespace adagate
