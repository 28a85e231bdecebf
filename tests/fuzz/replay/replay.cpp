// Stands in for libFuzzer where there is none: gives a target the files of folders, each whole and
// cut short everywhere, and with single bytes changed. fuzz_NAME_replay FOLDER...
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr size_t kVariations = 200;  // of each kind and file

void replay(std::vector<uint8_t> input) {
  LLVMFuzzerTestOneInput(input.data(), input.size());
  size_t stride = input.size() / kVariations + 1;
  for (size_t at = 0; at < input.size(); at += stride) {
    // A vector of its own, so that a sanitizer sees a read past the end.
    std::vector<uint8_t> cut(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(at));
    LLVMFuzzerTestOneInput(cut.data(), cut.size());
    for (uint8_t changed : {uint8_t{0}, uint8_t{0xff}, static_cast<uint8_t>(input[at] ^ 1)}) {
      uint8_t original = std::exchange(input[at], changed);
      LLVMFuzzerTestOneInput(input.data(), input.size());
      input[at] = original;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  int files = 0;
  for (int i = 1; i < argc; ++i) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[i])) {
      if (!entry.is_regular_file()) continue;
      std::ifstream in(entry.path(), std::ios::binary);
      replay({std::istreambuf_iterator<char>(in), {}});
      ++files;
    }
  }
  std::printf("%d files replayed\n", files);
  return files > 0 ? 0 : 1;
}
