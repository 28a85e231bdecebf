// Bytes as a token file. The first byte says whether the checksums are put right, so that the
// fuzzer gets past them.
#include <cstring>
#include <vector>
#include <xxhash.h>

#include "data/token_file.h"
#include "tests/fuzz/fuzz.h"

namespace {

void put_checksums_right(std::vector<std::byte>& file) {
  using adagate::TokenFileHeader;
  if (file.size() < sizeof(TokenFileHeader)) return;
  uint64_t payload =
      XXH3_64bits(file.data() + sizeof(TokenFileHeader), file.size() - sizeof(TokenFileHeader));
  std::memcpy(file.data() + offsetof(TokenFileHeader, payload_hash), &payload, 8);
  uint64_t header = XXH3_64bits(file.data(), offsetof(TokenFileHeader, header_hash));
  std::memcpy(file.data() + offsetof(TokenFileHeader, header_hash), &header, 8);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace adagate;
  if (size == 0) return 0;
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  std::vector<std::byte> file(bytes + 1, bytes + size);
  if (data[0] & 1) put_checksums_right(file);
  fuzz::expect_only_error([&] {
    TokenView view(file, "fuzz.tokens");
    fuzz::expect(view.size() > 0, "a token file holds tokens");
    for (int64_t d = 0; d < view.documents(); ++d)
      fuzz::expect(view.document_start(d) <= view.document_start(d + 1), "documents in order");
    std::vector<int32_t> ids(static_cast<size_t>(view.size()));
    view.read(0, ids);
    view.verify();
    for (int32_t id : ids)
      fuzz::expect(id >= 0 && id < view.vocabulary(), "verified ids are in the vocabulary");
  });
  return 0;
}
