#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/io/atomic_file.h"
#include "core/io/safetensors.h"
#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"

using namespace adagate;
namespace fs = std::filesystem;

namespace {

fs::path scratch(const std::string& name) {
  static const TempFolder folder;
  return folder.path() / name;
}

std::string bytes_of(const fs::path& path) {
  return read_text_file(path, "file");
}

std::string with_header(const std::string& json, const std::string& data) {
  uint64_t n = json.size();
  std::string s(8, '\0');
  std::memcpy(s.data(), &n, 8);
  return s + json + data;
}

std::string message_of(const std::string& file) {
  try {
    parse_safetensors(std::span<const char>(file.data(), file.size()), "f");
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("safetensors: tensors of every type come back as written") {
  std::vector<float> values{1.5f, -2.0f, 3.25f, 0.0f, 7.0f, -0.5f};
  std::vector<NamedTensor> tensors;
  for (DType t : {DType::f32, DType::bf16, DType::f64, DType::i32, DType::i64, DType::u8}) {
    std::vector<float> v = values;
    if (t == DType::u8) v = {1, 2, 3, 4, 5, 255};
    tensors.push_back(
        {std::string(name_of(t)), Tensor::from(std::span<const float>(v), {2, 3}, t)});
  }
  tensors.push_back({"empty", Tensor::empty({0, 4}, DType::f32)});
  tensors.push_back({"scalar", Tensor::full({}, DType::f32, 4.0)});
  auto path = scratch("all.safetensors");
  uint64_t sum = write_safetensors(path, tensors, {{"format", "pt"}});
  REQUIRE(sum == checksum_file(path));

  SafetensorsFile file(path);
  REQUIRE(file.metadata().at("format") == "pt");
  REQUIRE(file.tensors().size() == tensors.size());
  for (auto& t : tensors) {
    Tensor back = file.read(t.name);
    REQUIRE(back.shape() == t.tensor.shape());
    REQUIRE(back.dtype() == t.tensor.dtype());
    REQUIRE(back.to_doubles() == t.tensor.to_doubles());
  }
  REQUIRE_THROWS_AS(file.read("absent"), Error);
}

TEST_CASE("safetensors: the data begins at a multiple of 8 bytes, as the format asks") {
  std::string name;
  for (int length = 0; length < 9; ++length, name += 'x') {
    std::vector<NamedTensor> tensors{{name, Tensor::zeros({3}, DType::f32)}};
    write_safetensors(scratch("aligned.safetensors"), tensors);
    uint64_t header = 0;
    std::memcpy(&header, bytes_of(scratch("aligned.safetensors")).data(), 8);
    CHECK(header % 8 == 0);
  }
}

TEST_CASE("safetensors: every type of the format is listed, and refused only when it is read") {
  struct Case {
    const char* type;
    int64_t elements, bytes;
  };
  for (auto [type, elements, bytes] :
       {Case{"BOOL", 8, 8}, {"U8", 8, 8},      {"I8", 8, 8},          {"F8_E4M3", 8, 8},
        {"F8_E5M2", 8, 8},  {"F8_E8M0", 8, 8}, {"F8_E4M3FNUZ", 8, 8}, {"F8_E5M2FNUZ", 8, 8},
        {"F4", 16, 8},      {"F6_E2M3", 4, 3}, {"F6_E3M2", 8, 6},     {"I16", 4, 8},
        {"U16", 4, 8},      {"F16", 4, 8},     {"BF16", 4, 8},        {"I32", 2, 8},
        {"U32", 2, 8},      {"F32", 2, 8},     {"I64", 1, 8},         {"U64", 1, 8},
        {"F64", 1, 8},      {"C64", 1, 8}}) {
    CAPTURE(type);
    std::string header =
        fmt::format(R"({{"a":{{"dtype":"{}","shape":[{}],"data_offsets":[0,{}]}},)"
                    R"("b":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}}}})",
                    type, elements, bytes, bytes, bytes + 4);
    std::ofstream(scratch("types.safetensors"), std::ios::binary)
        << with_header(header, std::string(static_cast<size_t>(bytes) + 4, '\0'));
    SafetensorsFile file(scratch("types.safetensors"));
    const SafetensorsEntry& entry = file.entry("a");
    CHECK(entry.type == type);
    CHECK(entry.dims == std::vector<int64_t>{elements});
    if (!entry.dtype)
      CHECK_THROWS_WITH(file.read("a"), Catch::Contains(std::string("a is ") + type));
    if (entry.dtype) CHECK(file.read("a").shape().numel() == elements);
    CHECK(file.read("b").shape().numel() == 1);
  }
  // Half bytes don't count.
  CHECK_FALSE(message_of(with_header(R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}})",
                                     std::string(1, 0)))
                  .empty());
}

TEST_CASE("safetensors: what is another file is named") {
  CHECK(message_of("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n") ==
        "f: is a Git LFS pointer, not the file itself; fetch the file itself with 'git lfs pull'");
  CHECK(message_of("PK\3\4 and the names of what is in it") ==
        "f: is a zip archive (also .docx, .npz, PyTorch's .pt), not a safetensors file");
}

TEST_CASE("safetensors: damaged files are refused with their name") {
  auto path = scratch("good.safetensors");
  std::vector<NamedTensor> one{{"a", Tensor::zeros({4}, DType::f32)}};
  write_safetensors(path, one);
  std::string good = bytes_of(path);
  REQUIRE(message_of(good).empty());

  for (size_t cut : {size_t{0}, size_t{7}, size_t{12}, good.size() - 1}) {
    REQUIRE_FALSE(message_of(good.substr(0, cut)).empty());
  }
  REQUIRE(message_of(good.substr(0, good.size() - 1)).find("truncated") != std::string::npos);
  REQUIRE_FALSE(message_of(good + "x").empty());

  auto f32 = [](const std::string& shape, const std::string& offsets) {
    return "{\"dtype\":\"F32\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
  };
  std::string d8(8, '\0');
  REQUIRE(message_of(with_header("{\"a\":" + f32("[2]", "[0,8]") + "}", d8)).empty());
  // Wrong in one respect each.
  for (const std::string& header : {
           std::string("{"),
           std::string("[]"),
           std::string("{\"a\":3}"),
           "{\"a\":" + f32("[3]", "[0,8]") + "}",
           "{\"a\":" + f32("[2]", "[0,16]") + "}",
           "{\"a\":" + f32("[-2]", "[0,8]") + "}",
           "{\"a\":" + f32("[1]", "[4,8]") + "}",
           "{\"a\":" + f32("[2]", "[8,0]") + "}",
           "{\"a\":" + f32("[1e3]", "[0,8]") + "}",
           "{\"a\":" + f32("[1099511627775,1099511627775]", "[0,8]") + "}",
           "{\"a\":" + f32("[1]", "[0,4]") + ",\"b\":" + f32("[2]", "[0,8]") + "}",
           "{\"a\":" + f32("[2]", "[0,8]") + ",\"a\":" + f32("[2]", "[0,8]") + "}",
           std::string("{\"a\":{\"dtype\":\"F7\",\"shape\":[2],\"data_offsets\":[0,8]}}"),
           std::string("{\"__metadata__\":3}"),
           std::string("{\"__metadata__\":{\"format\":3}}"),
           std::string(100000, '['),
       }) {
    INFO(header.substr(0, 80));
    REQUIRE_FALSE(message_of(with_header(header, d8)).empty());
  }
}
