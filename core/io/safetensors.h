// Tensor files in the safetensors format: 8 bytes of header length (little endian), a JSON header
// {name: {dtype, shape, data_offsets}}, then the data. https://huggingface.co/docs/safetensors
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/io/mapped_file.h"
#include "core/tensor/tensor.h"

namespace adagate {

struct SafetensorsEntry {
  std::string type;  // the format's name: "F32", "F8_E4M3", ...
  std::vector<int64_t> dims;
  // As read() gives it; no dtype: one that the program doesn't compute with, which can't be read.
  std::optional<DType> dtype;
  Shape shape;
  size_t begin = 0, end = 0;  // bytes from the start of the data
};

struct SafetensorsHeader {
  std::map<std::string, SafetensorsEntry> tensors;
  std::map<std::string, std::string> metadata;
  size_t data_begin = 0;  // bytes from the start of the file
};

// Checks the header wholly: length, JSON, types, shapes against offsets, overlaps, holes, data past
// the end. `file` is the whole content; `name` appears in the Error.
SafetensorsHeader parse_safetensors(std::span<const char> file, const std::string& name);

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::map<std::string, SafetensorsEntry>& tensors() const { return header_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  bool contains(const std::string& name) const { return header_.tensors.count(name) > 0; }
  // A copy in memory. Throws Error naming file and tensor when it is not there, or of a type that
  // the program doesn't compute with.
  Tensor read(const std::string& name) const;
  // The mapped bytes of a tensor, valid while this object lives; after reading, check_intact().
  std::span<const char> bytes(const std::string& name) const;
  // Throws Error if the file was cut or failed while its bytes were read.
  void check_intact() const { file_.check_intact(); }
  const SafetensorsEntry& entry(const std::string& name) const;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  MappedFile file_;
  SafetensorsHeader header_;
};

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

// Writes the tensors in order, atomically. Returns the XXH3 64-bit checksum of the file's bytes.
uint64_t write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                           const std::map<std::string, std::string>& metadata = {});

// XXH3 64-bit checksum of a file, of bytes.
uint64_t checksum_file(const std::filesystem::path& path);
uint64_t checksum_bytes(std::span<const char> bytes);

}  // namespace adagate
