// Bytes as a tensor file.
#include <vector>

#include "core/io/safetensors.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace adagate;
  std::vector<char> file(data, data + size);
  fuzz::expect_only_error([&] {
    SafetensorsHeader header = parse_safetensors(file, "fuzz.safetensors");
    fuzz::expect(header.data_begin <= size, "the data begins inside the file");
    for (const auto& [name, entry] : header.tensors) {
      fuzz::expect(entry.begin <= entry.end && entry.end <= size - header.data_begin,
                   "a tensor lies inside the file");
      if (!entry.dtype) continue;
      fuzz::expect(static_cast<size_t>(entry.shape.numel()) * size_of(*entry.dtype) ==
                       entry.end - entry.begin,
                   "a tensor's bytes are those of its shape");
    }
  });
  return 0;
}
