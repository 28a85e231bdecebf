#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>
#include <xxhash.h>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "data/byte_tokenizer.h"
#include "data/dataset.h"
#include "data/token_file.h"
#include "data/tokenize_files.h"
#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_paths.h"

using namespace adagate;
using Catch::Contains;

namespace {

// A tokenizer of a given vocabulary: what the file format sees of one.
class FakeTokenizer : public ByteTokenizer {
 public:
  explicit FakeTokenizer(int64_t size) : size_(size) {}
  int64_t vocabulary_size() const override { return size_; }
  int32_t end_of_text() const override { return -1; }
  uint64_t hash() const override { return 0xF00D + static_cast<uint64_t>(size_); }
  std::string name() const override { return "fake"; }

 private:
  int64_t size_;
};

std::vector<int32_t> random_ids(int64_t count, int64_t vocabulary) {
  Rng rng(3, RngStream::test);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i)
    ids.push_back(static_cast<int32_t>(rng.at(i)[0] % static_cast<uint64_t>(vocabulary)));
  return ids;
}

std::vector<int32_t> all_ids(const TokenView& view) {
  std::vector<int32_t> ids(view.size());
  view.read(0, ids);
  return ids;
}

std::string message_of_bytes(const std::string& content) {
  try {
    TokenView view(std::as_bytes(std::span(content)), "x.bin");
    view.verify();
  } catch (const Error& e) {
    return e.what();
  }
  return "(no error)";
}

// A header field set to another value, with the checksum made right again if asked.
template <class T>
std::string with_field(std::string content, size_t at, T value, bool reseal) {
  std::memcpy(content.data() + at, &value, sizeof value);
  if (reseal) {
    size_t end = offsetof(TokenFileHeader, header_hash);
    uint64_t hash = XXH3_64bits(content.data(), end);
    std::memcpy(content.data() + end, &hash, sizeof hash);
  }
  return content;
}

// Some words, spaces of several kinds, lines, blank lines; also long stretches without white space.
std::string random_text(uint64_t seed, int words) {
  const char* parts[] = {" the",   "\n",    "  ", "\n\n",   "naïve",
                         "\u3000", " it's", "\t", "日本語", "12"};
  Rng rng(seed, RngStream::test);
  std::string text;
  for (int i = 0; i < words; ++i) {
    auto r = rng.at(i);
    text += r[0] % 50 == 0 ? std::string(r[1] % 300, 'y') : parts[r[1] % 10];
  }
  return text;
}

std::vector<std::vector<int32_t>> documents_of(const TokenView& view) {
  std::vector<std::vector<int32_t>> documents;
  for (int64_t d = 0; d < view.documents(); ++d) {
    documents.emplace_back(view.document_start(d + 1) - view.document_start(d));
    view.read(view.document_start(d), documents.back());
  }
  return documents;
}

std::vector<std::string> texts_of(const TokenView& view, const Tokenizer& tokenizer) {
  std::vector<std::string> texts;
  for (const auto& ids : documents_of(view)) texts.push_back(tokenizer.decode(ids));
  return texts;
}

const std::string kBpe = source_path("tests/reference/fixtures/tokenizer.json");

}  // namespace

TEST_CASE("a token file gives back what was written, in two and four bytes") {
  TempFolder folder;
  for (int64_t vocabulary : {257, 65536, 65537, 200000}) {
    FakeTokenizer tokenizer(vocabulary);
    auto ids = random_ids(700001, vocabulary);
    ids[0] = static_cast<int32_t>(vocabulary - 1);
    std::string path = folder.path("a.bin");
    {
      TokenFileWriter writer(path, tokenizer);
      writer.begin_document();
      writer.append(std::span(ids).first(5));
      writer.begin_document();
      writer.append(std::span(ids).subspan(5));
      CHECK_FALSE(std::filesystem::exists(path));
      writer.finish();
    }
    TokenFile opened(path);
    TokenFile file = std::move(opened);
    const TokenView& view = file.view();
    CHECK(view.token_width() == (vocabulary <= 65536 ? 2 : 4));
    CHECK(view.vocabulary() == vocabulary);
    CHECK(view.tokenizer_name() == "fake");
    CHECK(all_ids(view) == ids);
    CHECK(view.documents() == 2);
    CHECK(view.document_start(1) == 5);
    CHECK(view.document_start(2) == 700001);
    view.verify();
    view.check_tokenizer(tokenizer);
    CHECK_THROWS_WITH(view.check_tokenizer(ByteTokenizer()), Contains("another tokenizer"));
    std::vector<int32_t> two(2);
    view.read(699999, two);
    CHECK(two == std::vector<int32_t>{ids[699999], ids[700000]});
    CHECK_THROWS_AS(view.read(700000, two), Error);
    CHECK_THROWS_AS(view.read(-1, two), Error);
    CHECK_THROWS_AS(view.document_start(3), Error);
    std::filesystem::remove(path);
  }
}

TEST_CASE("a token file that is not finished leaves nothing behind") {
  TempFolder folder;
  std::string old = folder.write("a.bin", "old");
  {
    TokenFileWriter writer(old, ByteTokenizer());
    writer.append(std::vector<int32_t>{1, 2});
    CHECK_THROWS_WITH(writer.append(std::vector<int32_t>{257}), Contains("257"));
    CHECK_THROWS_AS(writer.append(std::vector<int32_t>{-1}), Error);
  }
  CHECK(folder.read("a.bin") == "old");
  {
    TokenFileWriter writer(old, ByteTokenizer());
    CHECK_THROWS_WITH(writer.finish(), Contains("input is empty"));
  }
  size_t entries = 0;
  for (auto& entry : std::filesystem::directory_iterator(folder.path("")))
    entries += entry.exists();
  CHECK(entries == 1);
  CHECK_THROWS_WITH(TokenFileWriter(folder.path("no/such/a.bin"), ByteTokenizer()),
                    Contains("cannot be written"));
}

TEST_CASE("a token file that may not be replaced stays, unless it holds the same tokens") {
  TempFolder folder;
  std::string path = folder.path("a.bin");
  auto write = [&](std::vector<int32_t> ids) {
    TokenFileWriter writer(path, ByteTokenizer(), false);
    writer.begin_document();
    writer.append(ids);
    writer.finish();
  };
  write({1, 2, 3});
  std::string first = folder.read("a.bin");
  CHECK_NOTHROW(write({1, 2, 3}));
  CHECK_THROWS_WITH(write({1, 2, 4}), Contains("a.bin: is there already, with other tokens"));
  CHECK(folder.read("a.bin") == first);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);
  folder.write("a.bin", "a text of the user's");
  CHECK_THROWS_WITH(write({1, 2, 3}), Contains("is there already"));
  CHECK(folder.read("a.bin") == "a text of the user's");
}

TEST_CASE("broken token files are refused with the reason") {
  TempFolder folder;
  TokenFileWriter writer(folder.path("a.bin"), ByteTokenizer());
  for (int document = 0; document < 3; ++document) {
    writer.begin_document();
    writer.append(std::vector<int32_t>{5, 6, 7});
  }
  writer.finish();
  std::string good = folder.read("a.bin");
  REQUIRE(good.size() == 128 + 24 + 24);
  CHECK(message_of_bytes(good) == "(no error)");
  CHECK_THAT(message_of_bytes(""), Contains("x.bin: is empty"));
  CHECK_THAT(message_of_bytes("Some text, no tokens."), Contains("is no token file"));
  for (size_t size = 1; size < good.size(); ++size)
    CHECK_THAT(message_of_bytes(good.substr(0, size)), Contains("truncated"));
  CHECK_THAT(message_of_bytes(good + "x"), Contains("overlong"));
  // Every flipped bit is found.
  for (size_t bit = 0; bit < 8 * good.size(); ++bit) {
    std::string bad = good;
    bad[bit / 8] ^= static_cast<char>(1 << bit % 8);
    CHECK(message_of_bytes(bad) != "(no error)");
  }
  using H = TokenFileHeader;
  auto field = [&](size_t at, auto value, bool reseal = true) {
    return message_of_bytes(with_field(good, at, value, reseal));
  };
  CHECK_THAT(field(offsetof(H, version), 7u, false), Contains("version 7"));
  CHECK_THAT(field(offsetof(H, tokens), uint64_t{8}, false), Contains("header is damaged"));
  CHECK_THAT(field(offsetof(H, tokens), uint64_t{0}), Contains("holds no tokens"));
  CHECK_THAT(field(offsetof(H, tokens), ~uint64_t{0}), Contains("truncated"));
  CHECK_THAT(field(offsetof(H, tokens), uint64_t{13}), Contains("truncated"));
  CHECK_THAT(field(offsetof(H, documents), ~uint64_t{0} / 8), Contains("truncated"));
  CHECK_THAT(field(offsetof(H, token_width), 3u), Contains("contradicts"));
  CHECK_THAT(field(offsetof(H, vocabulary), uint64_t{0}), Contains("contradicts"));
  CHECK_THAT(field(offsetof(H, vocabulary), uint64_t{7}), Contains("token 2 is 7"));
  CHECK_THAT(field(offsetof(H, vocabulary), uint64_t{1} << 32), Contains("contradicts"));
  CHECK_THAT(field(offsetof(H, header_size), 136u), Contains("contradicts"));
  CHECK_THAT(field(offsetof(H, reserved), 1u), Contains("contradicts"));
  CHECK_THAT(field(offsetof(H, tokenizer_name) + 55, 'r'), Contains("contradicts"));  // no end
  CHECK_THAT(field(128 + 24 + 8, uint64_t{100}), Contains("document 1"));
  CHECK_THAT(field(128 + 24 + 8, ~uint64_t{0}), Contains("document"));
  CHECK_THROWS_WITH(TokenFile(folder.path("none.bin")), Contains("none.bin: cannot be opened"));
  CHECK_THROWS_WITH(TokenFile(folder.path("")), Contains("not a regular file"));
  folder.write("zero.bin", "");
  CHECK_THROWS_WITH(TokenFile(folder.path("zero.bin")), Contains("is empty"));
}

TEST_CASE("a token file that changes under a data set: what is the same goes on, else an error") {
  TempFolder folder;
  // The times of files are told in ticks of some milliseconds.
  auto rewrite = [&](const std::string& now) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    folder.write("a.tokens", now);
  };
  auto write = [&](const std::string& name, int32_t token) {
    TokenFileWriter writer(folder.path(name), FakeTokenizer(300));
    writer.append(std::vector<int32_t>(20'000, token));
    writer.finish();
    return folder.read(name);
  };
  std::string content = write("a.tokens", 5);
  TokenDataset data(TokenFile(folder.path("a.tokens")), 100);
  CHECK(data.get(3).ids.at(7) == 5);
  rewrite(content);  // in place, the same
  CHECK(data.get(3).ids.at(7) == 5);
  rewrite(content + "more");  // what was mapped is as it was
  CHECK(data.get(3).ids.at(7) == 5);
  rewrite(content);

  std::string cut = content.substr(0, 5000);
  std::string other = write("b.tokens", 6);
  std::string damaged = content;
  damaged[30'000] ^= 1;
  for (const std::string& now : {other, damaged}) {
    TokenDataset used(TokenFile(folder.path("a.tokens")), 100);
    rewrite(now);
    CHECK_THROWS_WITH(used.get(0), Contains("a.tokens: was changed while it was in use"));
    folder.write("a.tokens", content);
  }
  TokenDataset used(TokenFile(folder.path("a.tokens")), 100);
  rewrite(cut);
  CHECK_THROWS_WITH(used.get(150), Contains("a.tokens was cut from"));
}

TEST_CASE("every token of a file is verified, wherever it lies and however wide it is") {
  TempFolder folder;
  const int64_t count = 3 * 65536 + 77;
  for (int64_t vocabulary : {300, 100000}) {
    TokenFileWriter writer(folder.path("a.bin"), FakeTokenizer(vocabulary));
    writer.append(random_ids(count, vocabulary));
    writer.finish();
    std::string good = folder.read("a.bin");
    CHECK(message_of_bytes(good) == "(no error)");
    size_t width = vocabulary == 300 ? 2 : 4;
    for (int64_t place : {0, 65535, 65536, 131072, 196607, 196608, 3 * 65536 + 76}) {
      std::string bad = good;
      auto id = static_cast<uint32_t>(vocabulary);  // one more than there are
      std::memcpy(bad.data() + 128 + place * static_cast<int64_t>(width), &id, width);
      CHECK_THAT(message_of_bytes(bad), Contains("checksum"));
      uint64_t payload = XXH3_64bits(bad.data() + 128, bad.size() - 128);
      bad = with_field(bad, offsetof(TokenFileHeader, payload_hash), payload, true);
      CHECK_THAT(message_of_bytes(bad),
                 Contains("token " + std::to_string(place) + " is " + std::to_string(vocabulary)));
    }
  }
}

TEST_CASE("files are tokenized in pieces as if whole") {
  TempFolder folder;
  auto tokenizer = load_tokenizer(kBpe);
  std::vector<std::string> inputs;
  std::vector<std::vector<int32_t>> expected;
  int64_t bytes = 0;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    std::string text = random_text(seed, seed == 3 ? 0 : 400);
    if (seed == 4) text = std::string(5000, 'z') + "\n";
    inputs.push_back(folder.write("in" + std::to_string(seed), text));
    bytes += static_cast<int64_t>(text.size());
    auto ids = tokenizer->encode(text);
    ids.push_back(tokenizer->end_of_text());
    if (!text.empty()) expected.push_back(ids);
  }
  for (size_t piece : {1, 2, 7, 64, 1000, 1 << 20}) {
    TokenizeOptions options{.piece_bytes = piece};
    int calls = 0;
    auto result = tokenize_files(inputs, *tokenizer, folder.path("out.bin"), options,
                                 [&](const TokenizeProgress& p) {
                                   ++calls;
                                   CHECK(p.total_bytes == bytes);
                                 });
    CHECK(calls >= 6);
    CHECK(result.bytes == bytes);
    CHECK(result.documents == 5);
    TokenFile file(folder.path("out.bin"));
    CHECK(result.tokens == file.view().size());
    REQUIRE(documents_of(file.view()) == expected);
    file.view().verify();
  }
}

TEST_CASE("lines and paragraphs are documents when asked for") {
  TempFolder folder;
  ByteTokenizer tokenizer;
  std::string text = "\n one\r\ntwo\n \t\n\nthree\nfour\nfive\n\n\nsix";
  auto in = folder.write("in.txt", text);
  auto out = folder.path("out.bin");
  using Texts = std::vector<std::string>;
  for (size_t piece : {1, 3, 1000}) {
    TokenizeOptions options{DocumentUnit::line, false, piece};
    CHECK(tokenize_files({in}, tokenizer, out, options).documents == 6);
    CHECK(texts_of(TokenFile(out).view(), tokenizer) ==
          Texts{" one", "two", "three", "four", "five", "six"});
    options.documents = DocumentUnit::paragraph;
    CHECK(tokenize_files({in}, tokenizer, out, options).documents == 3);
    CHECK(texts_of(TokenFile(out).view(), tokenizer) ==
          Texts{" one\r\ntwo", "three\nfour\nfive", "six"});
    options.end_of_text = true;
    tokenize_files({in}, tokenizer, out, options);
    CHECK(texts_of(TokenFile(out).view(), tokenizer).back() == "six<|endoftext|>");
  }
  // Every kind of white space makes a blank line, and none makes one beside a letter.
  folder.write("in.txt", "0\n\n1\n \n2\n\t\n3\n\r\n4\n\v\n5\n\f\n\v \f6\n \t\v\f\r\r\n7\n");
  tokenize_files({in}, tokenizer, out, {DocumentUnit::paragraph, false});
  CHECK(texts_of(TokenFile(out).view(), tokenizer) ==
        Texts{"0", "1", "2", "3", "4", "5", "\v \f6", "7"});
  CHECK(parse_document_unit("paragraph") == DocumentUnit::paragraph);
  CHECK_THROWS_WITH(parse_document_unit("page"), Contains("paragraph"));
}

TEST_CASE("tokenizing refuses what it cannot do") {
  TempFolder folder;
  ByteTokenizer tokenizer;
  auto out = folder.path("out.bin");
  auto in = folder.write("in.txt", "text");
  auto empty = folder.write("empty.txt", "");
  CHECK_THROWS_WITH(tokenize_files({}, tokenizer, out), Contains("no text files"));
  CHECK_THROWS_WITH(tokenize_files({folder.path("gone")}, tokenizer, out), Contains("gone"));
  CHECK_THROWS_WITH(tokenize_files({folder.path("")}, tokenizer, out), Contains("is a folder"));
  CHECK_THROWS_WITH(tokenize_files({empty}, tokenizer, out), Contains("input is empty"));
  CHECK_THROWS_WITH(tokenize_files({in}, FakeTokenizer(300), out), Contains("end_of_text"));
  CHECK_THROWS_WITH(tokenize_files({in}, tokenizer, folder.path("no/out")),
                    Contains("cannot be written"));
  CHECK_FALSE(std::filesystem::exists(out));
}
