#include "core/io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>
#include <xxhash.h>

#include "core/base/heartbeat.h"
#include "core/io/atomic_file.h"
#include "core/io/file_kind.h"

namespace adagate {
namespace {

using nlohmann::json;

constexpr size_t kMaxHeader = size_t{100} << 20;  // the format's own limit
// All types of the format, with the bits of an element.
struct Type {
  const char* name;
  size_t bits;
  std::optional<DType> dtype;  // none: known, but not computed with
};
const Type kTypes[] = {{"F32", 32, DType::f32}, {"BF16", 16, DType::bf16},
                       {"F64", 64, DType::f64}, {"I32", 32, DType::i32},
                       {"I64", 64, DType::i64}, {"U8", 8, DType::u8},
                       {"BOOL", 8, {}},         {"F4", 4, {}},
                       {"F6_E2M3", 6, {}},      {"F6_E3M2", 6, {}},
                       {"I8", 8, {}},           {"F8_E5M2", 8, {}},
                       {"F8_E4M3", 8, {}},      {"F8_E8M0", 8, {}},
                       {"F8_E4M3FNUZ", 8, {}},  {"F8_E5M2FNUZ", 8, {}},
                       {"I16", 16, {}},         {"U16", 16, {}},
                       {"F16", 16, {}},         {"U32", 32, {}},
                       {"U64", 64, {}},         {"C64", 64, {}}};

const char* type_name(DType t) {
  for (auto& type : kTypes)
    if (type.dtype == t) return type.name;
  return "?";
}

bool is_natural(const json& value) {
  return value.is_number_unsigned() || (value.is_number_integer() && value.get<int64_t>() >= 0);
}

SafetensorsEntry parse_entry(const json& item, const std::string& file, const std::string& name) {
  check(item.is_object() && item.contains("dtype") && item["dtype"].is_string() &&
            item.contains("shape") && item["shape"].is_array() && item.contains("data_offsets") &&
            item["data_offsets"].is_array() && item["data_offsets"].size() == 2,
        "{}: tensor {} lacks dtype, shape or data_offsets: the file is damaged or not safetensors",
        file, name);
  SafetensorsEntry entry;
  entry.type = item["dtype"].get<std::string>();
  auto* type = std::find_if(std::begin(kTypes), std::end(kTypes),
                            [&](auto& t) { return entry.type == t.name; });
  check(type != std::end(kTypes), "{}: tensor {} has the type {}, which safetensors doesn't know",
        file, name, entry.type);
  int64_t numel = 1;
  for (const json& d : item["shape"]) {
    check(is_natural(d) && d.get<uint64_t>() < (uint64_t{1} << 40),
          "{}: tensor {} has an impossible shape", file, name);
    entry.dims.push_back(d.get<int64_t>());
    check(!__builtin_mul_overflow(numel, entry.dims.back(), &numel),
          "{}: tensor {} has an impossible shape", file, name);
  }
  // Others can be listed, not read.
  if (entry.dims.size() <= Shape::kMaxRank) {
    entry.dtype = type->dtype;
    entry.shape = Shape(std::span<const int64_t>(entry.dims));
  }
  const json& offsets = item["data_offsets"];
  check(is_natural(offsets[0]) && is_natural(offsets[1]), "{}: tensor {} has impossible offsets",
        file, name);
  entry.begin = offsets[0].get<size_t>();
  entry.end = offsets[1].get<size_t>();
  size_t bits = 0;
  bool fits = !__builtin_mul_overflow(static_cast<size_t>(numel), type->bits, &bits);
  check(fits && bits % 8 == 0 && entry.begin <= entry.end && entry.end - entry.begin == bits / 8,
        "{}: tensor {} of shape [{}] and type {} does not match its bytes [{}, {})", file, name,
        fmt::join(entry.dims, ", "), entry.type, entry.begin, entry.end);
  return entry;
}

// Every byte of the data belongs to exactly one tensor.
void check_coverage(const SafetensorsHeader& header, size_t data_bytes, const std::string& file) {
  std::vector<std::pair<size_t, size_t>> spans;
  for (auto& [name, entry] : header.tensors) {
    check(entry.end <= data_bytes,
          "{}: tensor {} ends at byte {} of the data, the file has only {}: it is truncated", file,
          name, entry.end, data_bytes);
    // Empty tensors take no place, and may stand anywhere.
    if (entry.begin != entry.end) spans.emplace_back(entry.begin, entry.end);
  }
  std::sort(spans.begin(), spans.end());
  size_t at = 0;
  for (auto [begin, end] : spans) {
    check(begin == at, "{}: its tensors {} at byte {}: the file is damaged", file,
          begin < at ? "overlap" : "leave a hole", begin);
    at = end;
  }
  check(at == data_bytes, "{}: {} bytes after the last tensor: the file is damaged", file,
        data_bytes - at);
}

}  // namespace

SafetensorsHeader parse_safetensors(std::span<const char> file, const std::string& name) {
  // What the file claims is believed only after it has been compared with what is there: sizes in
  // a damaged or made-up header must not lead anywhere.
  check_no_lfs_pointer({file.data(), file.size()}, name);
  check(file.size() >= 8, "{}: {} bytes are too few for a safetensors file", name, file.size());
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  FileKind kind = file_kind({file.data(), std::min(file.size(), kFileHead)});
  bool plausible = length <= kMaxHeader && length <= file.size() - 8;
  bool named = kind.form != FileForm::text && !is_safetensors({file.data(), file.size()});
  check(plausible || !named, "{}: is {}, not a safetensors file", name, kind.noun);
  check(plausible, "{}: the header claims {} bytes of {}: the file is truncated or not safetensors",
        name, length, file.size());
  SafetensorsHeader header;
  header.data_begin = 8 + length;
  std::vector<std::string> seen;
  // Duplicate names are an error, which plain parsing would hide; nesting deeper than the format's
  // own is refused before it can exhaust the stack.
  auto callback = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth > 4) fail("{}: its header is nested too deeply: not safetensors", name);
    if (event == json::parse_event_t::key && depth == 1) seen.push_back(parsed);
    return true;
  };
  json root;
  try {
    root = json::parse(file.data() + 8, file.data() + 8 + length, callback);
  } catch (const json::exception&) {
    fail("{}: its header is not valid JSON: the file is damaged or not safetensors", name);
  }
  check(root.is_object(), "{}: its header is not a JSON object: not safetensors", name);
  std::sort(seen.begin(), seen.end());
  auto twice = std::adjacent_find(seen.begin(), seen.end());
  check(twice == seen.end(), "{}: tensor {} appears twice", name,
        twice == seen.end() ? "" : *twice);
  for (auto& [key, item] : root.items()) {
    if (key == "__metadata__") {
      check(item.is_object(), "{}: __metadata__ is not an object", name);
      for (auto& [k, v] : item.items()) {
        check(v.is_string(), "{}: __metadata__.{} is not a string", name, k);
        header.metadata[k] = v.get<std::string>();
      }
    } else {
      header.tensors[key] = parse_entry(item, name, key);
    }
  }
  check_coverage(header, file.size() - header.data_begin, name);
  return header;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : path_(path), file_(path), header_(parse_safetensors(file_.bytes(), path.string())) {
  file_.check_intact();
}

const SafetensorsEntry& SafetensorsFile::entry(const std::string& name) const {
  auto it = header_.tensors.find(name);
  check(it != header_.tensors.end(), "{}: has no tensor {}", path_.string(), name);
  return it->second;
}

std::span<const char> SafetensorsFile::bytes(const std::string& name) const {
  const SafetensorsEntry& e = entry(name);
  return file_.bytes().subspan(header_.data_begin + e.begin, e.end - e.begin);
}

Tensor SafetensorsFile::read(const std::string& name) const {
  const SafetensorsEntry& e = entry(name);
  check(
      e.dtype.has_value(),
      "{}: tensor {} is {} [{}], which this program can't compute with: convert it to F32 or BF16 "
      "of at most {} dimensions",
      path_.string(), name, e.type, fmt::join(e.dims, ", "), Shape::kMaxRank);
  Tensor t = Tensor::empty(e.shape, *e.dtype);
  beat();
  if (e.end > e.begin) std::memcpy(t.raw(), bytes(name).data(), e.end - e.begin);
  check_intact();
  return t;
}

uint64_t write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                           const std::map<std::string, std::string>& metadata) {
  // Ordered, so that the header lists tensors as they lie in the file.
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  size_t at = 0;
  for (const NamedTensor& t : tensors) {
    header[t.name] = {
        {"dtype", type_name(t.tensor.dtype())},
        {"shape", std::vector<int64_t>(t.tensor.shape().begin(), t.tensor.shape().end())},
        {"data_offsets", {at, at + t.tensor.bytes()}}};
    at += t.tensor.bytes();
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // the data starts on 8 bytes
  uint64_t length = text.size();

  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> hash(XXH3_createState(),
                                                                       XXH3_freeState);
  XXH3_64bits_reset(hash.get());
  AtomicFile file(path);
  auto put = [&](const void* data, size_t bytes) {
    XXH3_64bits_update(hash.get(), data, bytes);
    file.write(data, bytes);
  };
  put(&length, 8);
  put(text.data(), text.size());
  for (const NamedTensor& t : tensors) {
    Tensor host = t.tensor.to(Device{});
    if (host.bytes()) put(host.raw(), host.bytes());
  }
  file.commit();
  return XXH3_64bits_digest(hash.get());
}

uint64_t checksum_file(const std::filesystem::path& path) {
  MappedFile file(path);
  uint64_t checksum = checksum_bytes(file.bytes());
  file.check_intact();
  return checksum;
}

uint64_t checksum_bytes(std::span<const char> bytes) {
  // In pieces, so that whoever waits for it sees that it moves; the hash is that of the whole.
  constexpr size_t kPiece = 64 << 20;
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> hash(XXH3_createState(),
                                                                       XXH3_freeState);
  XXH3_64bits_reset(hash.get());
  for (size_t at = 0; at < bytes.size(); at += kPiece) {
    auto piece = bytes.subspan(at, std::min(kPiece, bytes.size() - at));
    XXH3_64bits_update(hash.get(), piece.data(), piece.size());
    beat();
  }
  return XXH3_64bits_digest(hash.get());
}

}  // namespace adagate
