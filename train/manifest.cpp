#include "train/manifest.h"

#include <nlohmann/json.hpp>

#include "core/base/counted.h"
#include "core/io/safetensors.h"
#include "train/checkpoint_layout.h"

namespace adagate {
namespace {

using nlohmann::json;

// 1: without a checksum of the manifest itself. 2: parameters and moments only, all cut along the
// first dimension.
constexpr int kFormatVersion = 3;
constexpr const char* kByElements = "elements";  // in place of the dimension that is cut

// Of everything in the manifest but the checksum itself.
std::string checksum_of(const json& root) {
  std::string text = root.dump();
  return fmt::format("{:016x}", checksum_bytes(text));
}

DType dtype_from(const std::string& name) {
  for (DType t : {DType::f32, DType::bf16, DType::f64, DType::i32, DType::i64, DType::u8})
    if (name_of(t) == name) return t;
  fail("unknown element type {}", name);
}

}  // namespace

std::string manifest_to_json(const Manifest& m) {
  json shards = json::array();
  for (const ShardInfo& s : m.shards) {
    shards.push_back(
        {{"file", s.file}, {"bytes", s.bytes}, {"xxh3", fmt::format("{:016x}", s.checksum)}});
  }
  json tensors = json::object();
  for (auto& [key, t] : m.tensors) {
    json slices = json::array();
    for (const SliceInfo& s : t.slices) {
      slices.push_back(
          {{"shard", s.shard}, {"begin", s.begin}, {"count", s.count}, {"key", s.key}});
    }
    tensors[key] = {{"dtype", std::string(name_of(t.dtype))},
                    {"shape", std::vector<int64_t>(t.shape.begin(), t.shape.end())},
                    {"slices", slices}};
    if (t.cut == Shard::kElements) tensors[key]["cut"] = kByElements;
    if (t.cut > 0) tensors[key]["cut"] = t.cut;
  }
  json root = {{"format", "adagate checkpoint"},
               {"version", kFormatVersion},
               {"step", m.state.step},
               {"epoch", m.state.epoch},
               {"epoch_step", m.state.epoch_step},
               {"consumed_samples", m.state.consumed_samples},
               {"consumed_tokens", m.state.consumed_tokens},
               {"extra", m.state.extra},
               {"ranks", m.ranks},
               {"expert_parallel", m.expert_parallel},
               {"config", m.config_yaml},
               {"shards", shards},
               {"tensors", tensors}};
  root["checksum"] = checksum_of(root);
  return root.dump(1);
}

namespace {

// All numbers of a manifest are whole and not negative; get<int64_t>() alone would take 1e30, too.
int64_t natural(const json& value) {
  check(value.is_number_integer(), "a number is not whole");
  check(!value.is_number_unsigned() || value.get<uint64_t>() <= INT64_MAX, "a number is too large");
  check(value.get<int64_t>() >= 0, "a number is negative");
  return value.get<int64_t>();
}

// The dimension that a tensor is cut along; the first where nothing is said.
int cut_from(const json& item, int rank) {
  if (!item.contains("cut")) return 0;
  const json& cut = item.at("cut");
  if (cut.is_string() && cut.get<std::string>() == kByElements) return Shard::kElements;
  int64_t dim = natural(cut);
  check(dim < rank, "a tensor of {} is cut along dimension {}", counted(rank, "dimension"), dim);
  return static_cast<int>(dim);
}

StoredTensor stored_tensor_from(const json& item, int64_t shards) {
  StoredTensor t;
  t.dtype = dtype_from(item.at("dtype").get<std::string>());
  std::vector<int64_t> dims;
  for (const json& d : item.at("shape")) dims.push_back(natural(d));
  t.shape = Shape(std::span<const int64_t>(dims));
  t.cut = cut_from(item, t.shape.rank());
  int64_t covered = 0;
  for (const json& s : item.at("slices")) {
    t.slices.push_back({natural(s.at("shard")), natural(s.at("begin")), natural(s.at("count")),
                        s.at("key").get<std::string>()});
    const SliceInfo& slice = t.slices.back();
    check(slice.shard >= 0 && slice.shard < shards, "a slice names shard {} of {}", slice.shard,
          shards);
    check(slice.begin == covered && slice.count > 0, "slices leave a hole or overlap");
    check(!__builtin_add_overflow(covered, slice.count, &covered), "slices don't fit the tensor");
  }
  check(covered == extent_of(t.shape, t.cut), "slices don't cover the tensor");
  return t;
}

void verify_checksum(json& root) {
  auto expected = root.at("checksum").get<std::string>();
  root.erase("checksum");
  check(checksum_of(root) == expected, "the manifest does not match its checksum: it is damaged");
}

}  // namespace

Manifest manifest_from_json(const std::string& text, const std::string& source) {
  try {
    json root = json::parse(text);
    check(root.is_object() && root.value("format", "") == "adagate checkpoint",
          "it is not an adagate checkpoint's manifest");
    int64_t version = natural(root.at("version"));
    check(version >= 1 && version <= kFormatVersion,
          "it has version {}, this program reads versions up to {}", version, kFormatVersion);
    if (version >= 2) verify_checksum(root);
    Manifest m;
    m.state.step = natural(root.at("step"));
    m.state.epoch = natural(root.at("epoch"));
    m.state.epoch_step = natural(root.at("epoch_step"));
    m.state.consumed_samples = natural(root.at("consumed_samples"));
    m.state.consumed_tokens = natural(root.at("consumed_tokens"));
    m.state.extra = root.at("extra").get<std::map<std::string, std::string>>();
    m.ranks = natural(root.at("ranks"));
    m.expert_parallel = natural(root.at("expert_parallel"));
    m.config_yaml = root.at("config").get<std::string>();
    for (const json& s : root.at("shards")) {
      auto file = s.at("file").get<std::string>();
      check(file.find('/') == std::string::npos, "a shard lies outside the directory");
      m.shards.push_back({file, natural(s.at("bytes")),
                          std::stoull(s.at("xxh3").get<std::string>(), nullptr, 16)});
    }
    for (auto& [key, item] : root.at("tensors").items()) {
      m.tensors[key] = stored_tensor_from(item, static_cast<int64_t>(m.shards.size()));
    }
    return m;
  } catch (const Error& e) {
    fail("{}: {}", source, e.what());
  } catch (const std::exception&) {
    fail("{}: the manifest is damaged: its JSON or one of its entries can't be read", source);
  }
}

}  // namespace adagate
