// Text as a checkpoint's manifest.
#include "tests/fuzz/fuzz.h"
#include "train/checkpoint_layout.h"
#include "train/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace adagate;
  fuzz::expect_only_error([&] {
    std::string text(reinterpret_cast<const char*>(data), size);
    Manifest manifest = manifest_from_json(text, "manifest.json");
    auto shards = static_cast<int64_t>(manifest.shards.size());
    for (const auto& [key, tensor] : manifest.tensors) {
      int64_t at = 0;
      for (const SliceInfo& slice : tensor.slices) {
        fuzz::expect(slice.shard >= 0 && slice.shard < shards, "a slice lies in a shard");
        fuzz::expect(slice.begin == at && slice.count > 0, "slices follow each other");
        at += slice.count;
      }
      fuzz::expect(at == extent_of(tensor.shape, tensor.cut), "slices cover the tensor");
    }
    // What was understood can be written, and is understood the same again.
    std::string written = manifest_to_json(manifest);
    fuzz::expect(manifest_to_json(manifest_from_json(written, "again")) == written,
                 "a manifest survives a round trip");
  });
  return 0;
}
