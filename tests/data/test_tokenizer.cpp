#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "data/bpe_tokenizer.h"
#include "data/byte_tokenizer.h"
#include "data/pretokenize.h"
#include "data/tokenizer.h"
#include "data/unicode.h"
#include "data/word_cache.h"
#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_paths.h"

using namespace adagate;

namespace {

const std::string kFixtures = source_path("tests/reference/fixtures/");

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in.good());
  return {std::istreambuf_iterator<char>(in), {}};
}

// Bytes of any value, with runs and spaces, so that malformed UTF-8 of all kinds turns up.
std::string random_bytes(uint64_t seed, size_t size) {
  Rng rng(seed, RngStream::test);
  std::string text;
  for (size_t i = 0; i < size; ++i) {
    auto r = rng.at(i);
    text += r[0] % 5 == 0 ? "  \n'"[r[1] % 4] : static_cast<char>(r[1]);
  }
  return text;
}

std::vector<std::string> words(std::string_view text) {
  std::vector<std::string> out;
  for (size_t start = 0; start < text.size();) {
    size_t end = word_end(text, start);
    REQUIRE(end > start);
    REQUIRE(end <= text.size());
    out.emplace_back(text.substr(start, end - start));
    start = end;
  }
  return out;
}

using Words = std::vector<std::string>;

// A definition with all bytes and the merges given, ids in order.
BpeDefinition small_definition(const std::vector<std::pair<std::string, std::string>>& merges) {
  BpeDefinition definition;
  for (int b = 0; b < 256; ++b) definition.vocabulary[byte_symbol(static_cast<uint8_t>(b))] = b;
  for (const auto& [left, right] : merges) {
    auto next = static_cast<int32_t>(definition.vocabulary.size());
    definition.vocabulary.emplace(left + right, next);
    definition.merges.emplace_back(left, right);
  }
  return definition;
}

template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "(no error)";
}

}  // namespace

TEST_CASE("the pre-tokeniser cuts as the GPT-2 pattern does") {
  CHECK(words("Hello world") == Words{"Hello", " world"});
  CHECK(words("I'll we've 'sx x's'") ==
        Words{"I", "'ll", " we", "'ve", " '", "sx", " x", "'s", "'"});
  CHECK(words("a  b") == Words{"a", " ", " b"});
  CHECK(words("a\n\nb") == Words{"a", "\n", "\n", "b"});
  CHECK(words("a \n b \n") == Words{"a", " \n", " b", " \n"});
  CHECK(words("x12 34.5!") == Words{"x", "12", " 34", ".", "5", "!"});
  CHECK(words("\u00a0\u3000x") == Words{"\u00a0", "\u3000", "x"});
  CHECK(words("\u4e2d\u6587 \u0661\u0300") == Words{"\u4e2d\u6587", " \u0661", "\u0300"});
  CHECK(words("a\xff\xc3 b") == Words{"a", "\xff\xc3", " b"});
  CHECK(words("\xed\xa0\x80\xe3\x80") == Words{"\xed\xa0\x80\xe3\x80"});
}

TEST_CASE("character classes are those of Unicode 16") {
  // Totals of DerivedGeneralCategory.txt: L* and N*; White_Space of PropList.txt.
  std::map<CharClass, int64_t> counts;
  for (uint32_t code = 0; code < 0x110000; ++code) ++counts[char_class(code)];
  CHECK(counts[CharClass::letter] == 1858 + 2258 + 31 + 404 + 136477);  // Lu, Ll, Lt, Lm, Lo
  CHECK(counts[CharClass::number] == 760 + 236 + 915);                  // Nd, Nl, No
  CHECK(counts[CharClass::space] == 25);
  // Assigned late, in Unicode 14 to 16.
  for (uint32_t letter : {0xcddu, 0x1c89u, 0xa7cbu, 0x105c0u, 0x1df25u, 0x31350u})
    CHECK(char_class(letter) == CharClass::letter);
}

TEST_CASE("the word cache forgets everything when it is full, and nothing else") {
  auto word = [](int i) { return "word" + std::to_string(i); };
  auto ids = [](int i) { return std::vector<int32_t>(1 + i % 3, i); };
  constexpr int kFull = 65536;
  for (int further : {0, 1, 700}) {
    WordCache cache;
    for (int i = 0; i < kFull + further; ++i) cache.add(word(i), ids(i));
    int wrong = 0, found = 0;
    for (int i = 0; i < kFull + further + 5; ++i) {
      std::vector<int32_t> got{-7};
      bool known = further == 0 ? i < kFull : i >= kFull && i < kFull + further;
      wrong += cache.find(word(i), got) != known;
      std::vector<int32_t> want{-7};
      if (auto own = ids(i); known) want.insert(want.end(), own.begin(), own.end());
      wrong += got != want;
      found += known;
    }
    CHECK(wrong == 0);
    CHECK(found == (further == 0 ? kFull : further));
  }
  WordCache cache;
  std::vector<int32_t> got;
  cache.add(std::string(WordCache::kMaxWord, 'x'), ids(1));
  cache.add(std::string(WordCache::kMaxWord + 1, 'x'), ids(1));
  CHECK(cache.find(std::string(WordCache::kMaxWord, 'x'), got));
  CHECK_FALSE(cache.find(std::string(WordCache::kMaxWord + 1, 'x'), got));
}

TEST_CASE("the small BPE gives the ids of Hugging Face tokenizers") {
  auto tokenizer = load_tokenizer(kFixtures + "tokenizer.json");
  auto cases = nlohmann::json::parse(read_file(kFixtures + "tokenizer_cases.json"));
  REQUIRE(cases.size() >= 1900);
  size_t with_special = 0;
  for (const auto& row : cases) {
    auto text = row[0].get<std::string>();
    auto plain = row[1].get<std::vector<int32_t>>();
    INFO("text " << row[0].dump());
    auto ids = tokenizer->encode(text);
    REQUIRE(ids == plain);
    REQUIRE(tokenizer->decode(ids) == text);
    auto special = row.size() > 2 ? row[2].get<std::vector<int32_t>>() : plain;
    with_special += row.size() > 2;
    REQUIRE(tokenizer->encode(text, {.recognize_special = true}) == special);
  }
  CHECK(with_special > 50);
  CHECK(tokenizer->vocabulary_size() == 757);
  CHECK(tokenizer->end_of_text() == 0);
  CHECK(tokenizer->name() == "bpe");
}

TEST_CASE("every byte string comes back from its ids") {
  auto bpe = load_tokenizer(kFixtures + "tokenizer.json");
  ByteTokenizer byte;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    std::string text = random_bytes(seed, seed * 7);
    REQUIRE(bpe->decode(bpe->encode(text)) == text);
    REQUIRE(byte.decode(byte.encode(text)) == text);
    for (int32_t id : bpe->encode(text)) REQUIRE((id >= 0 && id < bpe->vocabulary_size()));
  }
}

TEST_CASE("text can be cut at its safe prefix") {
  auto bpe = load_tokenizer(kFixtures + "tokenizer.json");
  std::string shakespeare = read_file(source_path("tests/reference/fixtures/tokenizer_cases.json"));
  size_t cuts = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    std::string text = seed % 2 ? random_bytes(seed, 120) : shakespeare.substr(97 * seed, 120);
    auto whole = bpe->encode(text);
    for (size_t length = 0; length <= text.size(); ++length) {
      size_t cut = bpe->safe_prefix(std::string_view(text).substr(0, length));
      REQUIRE(cut <= length);
      auto parts = bpe->encode(text.substr(0, cut));
      auto rest = bpe->encode(text.substr(cut));
      parts.insert(parts.end(), rest.begin(), rest.end());
      REQUIRE(parts == whole);
      cuts += cut > 0;
    }
  }
  CHECK(cuts > 10000);
}

TEST_CASE("merges go by rank, then from the left, in short and long words") {
  BpeTokenizer tokenizer(small_definition({{"a", "a"}, {"b", "a"}, {"aa", "aa"}, {"ba", "aa"}}));
  CHECK(tokenizer.encode("aaa") == std::vector<int32_t>{256, 'a'});
  CHECK(tokenizer.encode("baa") == std::vector<int32_t>{'b', 256});  // rank 0 before rank 1
  CHECK(tokenizer.encode("baaa") == std::vector<int32_t>{'b', 256, 'a'});
  // 2,000,001 letters: pairs of pairs, and the odd one left; this ends at once or never.
  auto ids = tokenizer.encode(std::string(2'000'001, 'a'));
  REQUIRE(ids.size() == 500'001);
  CHECK(ids.front() == 258);
  CHECK(ids[499'999] == 258);
  CHECK(ids.back() == 'a');
  // A long word gives what its repeats give in short words, where no merge crosses the joint.
  std::string part = "baaaab", text;
  std::vector<int32_t> expected;
  BpeTokenizer apart(small_definition({{"a", "a"}, {"b", "aa"}, {"a", "b"}, {"aa", "aa"}}));
  for (int i = 0; i < 40; ++i) {
    text += part;
    auto ids_of_part = apart.encode(part);
    expected.insert(expected.end(), ids_of_part.begin(), ids_of_part.end());
  }
  CHECK(apart.encode(text) == expected);
}

TEST_CASE("ids that stand for no text are told, in the vocabulary and beyond") {
  BpeDefinition definition = small_definition({});
  auto size = static_cast<int32_t>(definition.vocabulary.size());
  definition.vocabulary["far"] = size + 2;  // two holes before it
  BpeTokenizer tokenizer(definition);
  CHECK(ids_without_token(tokenizer, size + 3) == std::vector<int32_t>{size, size + 1});
  CHECK(ids_without_token(tokenizer, size + 5) ==
        std::vector<int32_t>{size, size + 1, size + 3, size + 4});
  CHECK(!tokenizer.has_token(-1));
  CHECK(ids_without_token(*load_tokenizer("byte"), 259) == std::vector<int32_t>{257, 258});
}

TEST_CASE("special tokens are text unless asked for") {
  auto definition = small_definition({});
  definition.vocabulary["<|endoftext|>"] = 256;
  definition.specials = {{"<|end", 257}, {"<|endoftext|>", 256}, {"|>", 258}};
  BpeTokenizer tokenizer(definition);
  std::string text = "a<|endoftext|><|end|>b";
  CHECK(tokenizer.encode(text).size() == text.size());
  auto ids = tokenizer.encode(text, {.recognize_special = true});
  CHECK(ids == std::vector<int32_t>{'a', 256, 257, 258, 'b'});  // the longest at each place
  CHECK(tokenizer.decode(ids) == text);
  CHECK(tokenizer.end_of_text() == 256);

  ByteTokenizer byte;
  CHECK(byte.encode("<|endoftext|>").size() == 13);
  CHECK(byte.encode("x<|endoftext|>", {.recognize_special = true}) ==
        std::vector<int32_t>{'x', 256});
  CHECK(byte.decode(std::vector<int32_t>{'x', 256}) == "x<|endoftext|>");
  CHECK_THROWS_AS(byte.decode(std::vector<int32_t>{257}), Error);
}

TEST_CASE("all file forms of one tokenizer are the same tokenizer") {
  TempFolder folder;
  auto json = nlohmann::json::parse(read_file(kFixtures + "tokenizer.json"));
  std::string merges = "#version: 0.2\n";
  auto& pairs = json["model"]["merges"];
  for (auto& pair : pairs) {
    std::string joined = pair[0].get<std::string>() + " " + pair[1].get<std::string>();
    merges += joined + "\r\n";
    pair = joined;  // the older form in tokenizer.json
  }
  folder.write("a/encoder.json", json["model"]["vocab"].dump());
  folder.write("a/vocab.bpe", merges);
  folder.write("b/vocab.json", json["model"]["vocab"].dump());
  folder.write("b/merges.txt", merges);
  folder.write("c/tokenizer.json", json.dump());
  auto original = load_tokenizer(kFixtures + "tokenizer.json");
  std::string text = "To be, or not to be: that's the question.\n";
  for (const char* name : {"a", "b", "c"}) {
    auto other = load_tokenizer(folder.path(name));
    CHECK(other->hash() == original->hash());
    CHECK(other->end_of_text() == original->end_of_text());
    CHECK(other->encode(text) == original->encode(text));
  }
  CHECK(original->hash() != ByteTokenizer().hash());
  pairs.erase(pairs.size() - 1);
  folder.write("d/tokenizer.json", json.dump());
  CHECK(load_tokenizer(folder.path("d"))->hash() != original->hash());
}

TEST_CASE("a batch is encoded as its texts are, and many threads may encode at once") {
  auto tokenizer = load_tokenizer(kFixtures + "tokenizer.json");
  std::vector<std::string> texts;
  for (uint64_t i = 0; i < 50; ++i) texts.push_back(random_bytes(i, 40 * i));
  std::vector<std::string_view> views(texts.begin(), texts.end());
  auto ids = encode_batch(*tokenizer, views);
  REQUIRE(ids.size() == texts.size());
  for (size_t i = 0; i < texts.size(); ++i) CHECK(ids[i] == tokenizer->encode(texts[i]));
  CHECK(encode_batch(*tokenizer, {}).empty());

  auto definition = small_definition({});
  definition.vocabulary.erase("x");
  BpeTokenizer incomplete(definition);
  std::vector<std::string_view> bad = {"a", "x", "b"};
  CHECK_THROWS_WITH(encode_batch(incomplete, bad), Catch::Contains("byte 0x78"));
}

TEST_CASE("broken tokenizer files are refused with the place and the remedy") {
  TempFolder folder;
  auto refused = [&](const std::string& name, const std::string& text) {
    folder.write(name, text);
    return message_of([&] { load_tokenizer(folder.path(name)); });
  };
  using Catch::Contains;
  CHECK_THAT(message_of([] { load_tokenizer("no/such"); }), Contains("no/such"));
  CHECK_THAT(message_of([] { load_tokenizer(""); }), Contains("no tokenizer"));
  folder.write("empty/readme", "x");
  CHECK_THAT(message_of([&] { load_tokenizer(folder.path("empty")); }), Contains("merges.txt"));
  CHECK_THAT(refused("zero.json", ""), Contains("zero.json") && Contains("empty"));
  CHECK_THAT(refused("cut.json", "{\"model\": {\"vocab\""), Contains("not valid JSON"));
  CHECK_THAT(refused("list.json", "[1]"), Contains("array"));
  CHECK_THAT(refused("other.json", "{\"a\": 1}"), Contains("no 'model'"));
  const std::string head =
      R"({"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"model":{"type":"BPE",)";
  CHECK_THAT(refused("v.json", head + R"("vocab":[],"merges":[]}})"), Contains("model.vocab"));
  CHECK_THAT(refused("v.json", head + R"("vocab":{},"merges":[]}})"), Contains("is empty"));
  CHECK_THAT(refused("v.json", head + R"("vocab":{"a":-1},"merges":[]}})"), Contains("'a' is -1"));
  CHECK_THAT(refused("v.json", head + R"("vocab":{"a":"0"},"merges":[]}})"), Contains("string"));
  CHECK_THAT(refused("v.json", head + R"("vocab":{"a":0,"b":0},"merges":[]}})"),
             Contains("same id 0"));
  CHECK_THAT(refused("v.json", head + R"("vocab":{"a":900000000},"merges":[]}})"),
             Contains("nearly dense"));
  CHECK_THAT(refused("m.json", head + R"("vocab":{"a":0},"merges":["a b"]}})"),
             Contains("merge 0") && Contains("'b'"));
  CHECK_THAT(refused("m.json", head + R"("vocab":{"a":0},"merges":["a"]}})"),
             Contains("merge 0 ('a') is not two tokens"));
  CHECK_THAT(refused("m.json", head + R"("vocab":{"a":0},"merges":[["a","a"]]}})"),
             Contains("'aa', which is not in the vocabulary"));
  CHECK_THAT(refused("w.json", R"({"model":{"type":"WordPiece"}})"), Contains("not BPE"));
  CHECK_THAT(refused("p.json", R"({"pre_tokenizer":{"type":"ByteLevel"},"model":{}})"),
             Contains("add_prefix_space"));
  folder.write("half/vocab.json", "{\"a\":0}");
  CHECK_THAT(message_of([&] { load_tokenizer(folder.path("half")); }),
             Contains("merges.txt is missing beside vocab.json"));
  folder.write("half/merges.txt", "#version: 0.2\na a\nbroken\n");
  CHECK_THAT(message_of([&] { load_tokenizer(folder.path("half")); }), Contains("line 3"));
}
