#include "train/file_report.h"

#include <fmt/ranges.h>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/counted.h"
#include "core/io/atomic_file.h"
#include "core/io/file_kind.h"
#include "core/io/safetensors.h"
#include "data/tokenizer.h"

namespace adagate {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kNotOurs = "no token file, tensor file, tokenizer or checkpoint";

// What every object of a report begins with.
ordered_json json_of(const fs::path& path, const char* kind) {
  return {{"path", path.string()}, {"kind", kind}};
}

Report index_report(const json& root, const fs::path& path) {
  const json& map = root["weight_map"];
  check(map.is_object(), "{}: its weight_map is no object of tensor: file", path.string());
  std::map<std::string, int64_t> tensors_of;
  for (const auto& [tensor, file] : map.items()) {
    check(file.is_string(), "{}: the file of tensor {} is not a name", path.string(), tensor);
    ++tensors_of[file.get<std::string>()];
  }
  Report report{.text = fmt::format("{}: index of a model in {} (safetensors)\n", path.string(),
                                    counted(tensors_of.size(), "shard")),
                .json = json_of(path, "tensor_index")};
  std::string& text = report.text;
  ordered_json shards = ordered_json::array();
  size_t missing = 0;
  for (const auto& [file, count] : tensors_of) {
    std::error_code error;
    bool there = fs::exists(path.parent_path() / file, error);
    missing += !there;
    text += fmt::format("  {:<48} {}{}\n", file, counted(count, "tensor"),
                        there ? "" : ", MISSING beside the index");
    shards.push_back({{"file", file}, {"tensors", count}, {"missing", !there}});
  }
  text += fmt::format("{}", counted(map.size(), "tensor"));
  auto metadata = root.find("metadata");
  ordered_json bytes;
  if (metadata != root.end() && metadata->is_object() && metadata->contains("total_size")) {
    const json& size = (*metadata)["total_size"];
    text += fmt::format(", {} bytes", size.dump());
    if (size.is_number()) bytes = size;
  }
  if (missing > 0) text += fmt::format(", {} missing", counted(missing, "shard"));
  text += "\n";
  report.json.update({{"shards", shards},
                      {"missing_shards", missing},
                      {"tensor_count", map.size()},
                      {"bytes", bytes}});
  return report;
}

Report model_config_report(const json& root, const fs::path& path) {
  Report report{.text = fmt::format(
                    "{}: a model's configuration (Hugging Face), which adagate doesn't read\n",
                    path.string()),
                .json = json_of(path, "model_config")};
  ordered_json values = ordered_json::object();
  for (const auto& [key, value] : root.items()) {
    if (!value.is_primitive()) continue;
    report.text += fmt::format("  {} = {}\n", key, value.dump());
    values[key] = value;
  }
  report.json["values"] = values;
  return report;
}

bool is_vocabulary(const json& root) {
  return root.size() > 1 && std::all_of(root.begin(), root.end(), [](const json& value) {
           return value.is_number_integer();
         });
}

Report metrics_report(const fs::path& path) {
  std::ifstream in(path);
  std::string line;
  int64_t lines = 0, first = -1, last = -1;
  while (std::getline(in, line)) {
    auto item = json::parse(line, nullptr, false);
    if (!item.is_object() || !item.contains("step") || !item["step"].is_number_integer()) continue;
    ++lines;
    last = item["step"].get<int64_t>();
    if (first < 0) first = last;
  }
  Report report{.text = fmt::format("{}: metrics of a run\n  lines  {}\n  steps  {} to {}\n",
                                    path.string(), lines, first, last),
                .json = json_of(path, "metrics")};
  report.json.update({{"lines", lines}, {"first_step", nullptr}, {"last_step", nullptr}});
  if (lines > 0) report.json.update({{"first_step", first}, {"last_step", last}});
  return report;
}

// "utf-8" and the like; "bytes": a text in another encoding, taken byte for byte.
const char* name_of(FileForm form, bool utf8) {
  switch (form) {
    case FileForm::utf16_le:
      return "utf-16le";
    case FileForm::utf16_be:
      return "utf-16be";
    case FileForm::gzip:
      return "gzip";
    case FileForm::zstd:
      return "zstd";
    default:
      return utf8 ? "utf-8" : "bytes";
  }
}

}  // namespace

Report tensor_file_report(const fs::path& path) {
  SafetensorsFile file(path);
  std::string text = fmt::format("{}: tensor file (safetensors)\n", path.string());
  ordered_json tensors = ordered_json::array();
  for (const auto& [key, value] : file.metadata()) text += fmt::format("  {} = {}\n", key, value);
  int64_t elements = 0, bytes = 0;
  for (const auto& [name, entry] : file.tensors()) {
    text += fmt::format("  {:<48} {:<7} [{}]\n", name, entry.type, fmt::join(entry.dims, ", "));
    tensors.push_back({{"name", name}, {"type", entry.type}, {"shape", entry.dims}});
    int64_t count = 1;
    for (int64_t d : entry.dims) count *= d;
    elements += count;
    bytes += static_cast<int64_t>(entry.end - entry.begin);
  }
  text +=
      fmt::format("{} tensors, {} elements, {} bytes\n", file.tensors().size(), elements, bytes);
  ordered_json json = json_of(path, "tensor_file");
  json.update({{"metadata", file.metadata()},
               {"tensors", tensors},
               {"elements", elements},
               {"bytes", bytes}});
  return {text, json};
}

Report tensor_files_report(const std::vector<fs::path>& paths, int& unsound) {
  Report all{.json = ordered_json::array()};
  for (const fs::path& path : paths) {
    Report one;
    try {
      one = tensor_file_report(path);
    } catch (const Error& e) {
      one = {.text = fmt::format("{}\n", e.what()), .json = json_of(path, "tensor_file")};
      one.json["error"] = e.what();
      ++unsound;
    }
    all.text += one.text;
    all.json.push_back(one.json);
  }
  return all;
}

Report tokenizer_report(const fs::path& path) {
  auto tokenizer = load_tokenizer(path.string());
  int32_t end = tokenizer->end_of_text();
  std::string hash = fmt::format("{:016x}", tokenizer->hash());
  Report report{.text = fmt::format("{}: tokenizer {}\n  vocabulary   {}\n  end of text  {}\n"
                                    "  hash         {}\n",
                                    path.string(), tokenizer->name(), tokenizer->vocabulary_size(),
                                    end, hash),
                .json = json_of(path, "tokenizer")};
  report.json.update({{"name", tokenizer->name()},
                      {"vocabulary", tokenizer->vocabulary_size()},
                      {"end_of_text", end >= 0 ? ordered_json(end) : ordered_json()},
                      {"hash", hash}});
  return report;
}

Report json_file_report(const fs::path& path) {
  std::string text = read_text_file(path, "file");
  check_is_text(std::string_view(text).substr(0, kFileHead), path.string());
  json root = json::parse(text, nullptr, false);
  check(!root.is_discarded(), "{}: is not valid JSON: it is damaged or another file",
        path.string());
  if (root.is_object() && root.contains("weight_map")) return index_report(root, path);
  if (root.is_object() && (root.contains("model_type") || root.contains("architectures")))
    return model_config_report(root, path);
  if (root.is_object() && root.contains("model")) return tokenizer_report(path);
  if (root.is_object() && is_vocabulary(root)) {
    Report report{
        .text = fmt::format("{}: a tokenizer's vocabulary of {}; inspect its folder, with the "
                            "merges\n",
                            path.string(), counted(root.size(), "token")),
        .json = json_of(path, "vocabulary")};
    report.json["vocabulary"] = root.size();
    return report;
  }
  std::vector<std::string> keys;
  if (root.is_object())
    for (const auto& [key, value] : root.items()) keys.push_back(key);
  constexpr size_t kShown = 8;
  bool more = keys.size() > kShown;
  keys.resize(std::min(keys.size(), kShown));
  fail("{}: is {}; it is JSON{}{}{}", path.string(), kNotOurs,
       keys.empty() ? "" : " with the keys ", fmt::join(keys, ", "), more ? ", ..." : "");
}

Report other_file_report(const fs::path& path) {
  std::string head = read_file_head(path.string());
  if (head.starts_with("{\"step\":")) return metrics_report(path);
  FileKind kind = file_kind(head);
  std::error_code error;
  auto size = fs::file_size(path, error);
  constexpr const char* kReads = "'adagate tokenize' and data.train read it";
  if (kind.form == FileForm::other) fail("{}: is {}; it is {}", path.string(), kNotOurs, kind.noun);
  bool utf8 = first_not_utf8(head) == head.npos;
  if (kind.form == FileForm::text)
    kind.noun = utf8 ? "text in UTF-8" : "text that is not in UTF-8, taken byte for byte";
  Report report{
      .text = fmt::format("{}: {}\n  bytes  {}\n{}\n", path.string(), kind.noun, size, kReads),
      .json = json_of(path, "text")};
  report.json.update({{"form", name_of(kind.form, utf8)}, {"bytes", size}});
  return report;
}

}  // namespace adagate
