#include <cstring>

#include "core/base/error.h"
#include "data/batch.h"
#include "data/byte_tokenizer.h"
#include "data/dataset.h"
#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"

using namespace adagate;
using Catch::Contains;

namespace {

// A token file of 0, 1, 2, ... in the byte vocabulary.
std::string counting_file(const TempFolder& folder, int32_t count) {
  std::string path = folder.path("counting.bin");
  TokenFileWriter writer(path, ByteTokenizer());
  for (int32_t i = 0; i < count; ++i) writer.append(std::vector<int32_t>{i % 257});
  writer.finish();
  return path;
}

// Sample i as given.
class GivenSamples : public Dataset {
 public:
  explicit GivenSamples(std::vector<Sample> samples) : samples_(std::move(samples)) {}
  int64_t size() const override { return static_cast<int64_t>(samples_.size()); }
  Sample get(int64_t id) const override { return samples_.at(static_cast<size_t>(id)); }

 private:
  std::vector<Sample> samples_;
};

}  // namespace

TEST_CASE("windows of a token file cover every target once") {
  TempFolder folder;
  for (int32_t count : {2, 3, 4, 5, 9, 10, 200}) {
    std::string path = counting_file(folder, count);
    for (int64_t sequence : {1, 2, 3, 4, 8, 300}) {
      TokenDataset dataset(TokenFile(path), sequence);
      int32_t next = 0;
      for (int64_t i = 0; i < dataset.size(); ++i) {
        Sample sample = dataset.get(i);
        REQUIRE(sample.ids.size() == sample.targets.size());
        REQUIRE(!sample.ids.empty());
        CHECK(dataset.length(i) == static_cast<int64_t>(sample.ids.size()));
        bool last = i + 1 == dataset.size();
        CHECK((last ? static_cast<int64_t>(sample.ids.size()) <= sequence
                    : static_cast<int64_t>(sample.ids.size()) == sequence));
        for (size_t t = 0; t < sample.ids.size(); ++t) {
          CHECK(sample.ids[t] == next);
          CHECK(sample.targets[t] == ++next);
        }
      }
      CHECK(next == count - 1);
      CHECK_THROWS_AS(dataset.get(dataset.size()), Error);
      CHECK_THROWS_AS(dataset.get(-1), Error);
    }
  }
}

TEST_CASE("a data set refuses what cannot be learnt from") {
  TempFolder folder;
  CHECK_THROWS_WITH(TokenDataset(TokenFile(counting_file(folder, 1)), 4),
                    Contains("at least 2 are needed"));
  CHECK_THROWS_WITH(TokenDataset(TokenFile(counting_file(folder, 9)), 0), Contains("windows of 0"));
  // A damaged token is found when it is read, before it indexes an embedding.
  std::string content = folder.read("counting.bin");
  uint16_t bad = 257;
  std::memcpy(content.data() + 128 + 2 * 5, &bad, sizeof bad);
  TokenView view(std::as_bytes(std::span(content)), "x.bin");
  TokenDataset dataset(view, 4);
  CHECK(dataset.get(0).ids.size() == 4);
  CHECK_THROWS_WITH(dataset.get(1), Contains("x.bin: token 257"));
}

TEST_CASE("a batch is padded to its longest row") {
  TempFolder folder;
  TokenDataset dataset(TokenFile(counting_file(folder, 12)), 4);  // lengths 4, 4, 3
  REQUIRE(dataset.size() == 3);
  Batch batch = make_batch(dataset, std::vector<int64_t>{2, 0}, std::vector<int64_t>{5, 7});
  CHECK(batch.rows == 2);
  CHECK(batch.sequence == 4);
  CHECK(batch.tokens == std::vector<int32_t>{8, 9, 10, 0, 0, 1, 2, 3});
  CHECK(batch.targets == std::vector<int32_t>{9, 10, 11, -1, 1, 2, 3, 4});
  CHECK(batch.lengths == std::vector<int32_t>{3, 4});
  CHECK(batch.sample_ids == std::vector<int64_t>{2, 0});
  CHECK(batch.places == std::vector<int64_t>{5, 7});
  CHECK(batch.valid_targets == 7);
  CHECK(make_batch(dataset, std::vector<int64_t>{2}, std::vector<int64_t>{0}).sequence == 3);
  Batch empty = make_batch(dataset, {}, {});
  CHECK(empty.rows == 0);
  CHECK(empty.sequence == 0);
  CHECK(empty.valid_targets == 0);
  CHECK_THROWS_AS(make_batch(dataset, std::vector<int64_t>{2}, {}), Error);
}

TEST_CASE("a batch takes samples with a target for every token alone") {
  GivenSamples dataset(
      {{{1, 2, 3}, {2, 3, -1}}, {{1, 2, 3}, {2, 3}}, {{1, 2}, {2, 3, 4}}, {{}, {}}});
  auto batch_of = [&](std::vector<int64_t> ids) { return make_batch(dataset, ids, ids); };
  Batch good = batch_of({0, 3});
  CHECK(good.targets == std::vector<int32_t>{2, 3, -1, -1, -1, -1});
  CHECK(good.valid_targets == 2);
  CHECK_THROWS_WITH(batch_of({0, 1}), Contains("sample 1: 3 tokens and 2 targets"));
  CHECK_THROWS_WITH(batch_of({2, 0}), Contains("sample 2: 2 tokens and 3 targets"));
}

TEST_CASE("a range of a data set is those samples and no others") {
  std::vector<Sample> samples;
  for (int32_t i = 0; i < 6; ++i) {
    std::vector<int32_t> ids(static_cast<size_t>(i) + 1, i);
    samples.push_back({ids, ids});
  }
  GivenSamples whole(samples);
  for (int64_t first = 0; first <= 6; ++first)
    for (int64_t count = 0; first + count <= 6; ++count) {
      DatasetRange range(whole, first, count);
      REQUIRE(range.size() == count);
      for (int64_t i = 0; i < count; ++i) {
        CHECK(range.get(i).ids[0] == first + i);
        CHECK(range.length(i) == first + i + 1);
      }
      CHECK_THROWS_WITH(range.get(count), Contains(fmt::format("sample {0} of {0}", count)));
      CHECK_THROWS_WITH(range.get(-1), Contains("sample -1"));
    }
  CHECK_THROWS_AS(DatasetRange(whole, 3, 4), Error);
  CHECK_THROWS_AS(DatasetRange(whole, -1, 2), Error);
  CHECK_THROWS_AS(DatasetRange(whole, 2, -1), Error);
}
