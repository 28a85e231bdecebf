// What a tokenizer's files may say and what must be refused because it would change ids.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "data/bpe_tokenizer.h"
#include "tests/support/catch.h"

using namespace adagate;
using Catch::Contains;
using Json = nlohmann::json;

namespace {

using Ids = std::vector<int32_t>;

// All bytes, then "ab", "bc" and <|endoftext|>, with nothing that is optional.
Json plain_json() {
  Json vocabulary;
  for (int b = 0; b < 256; ++b) vocabulary[byte_symbol(static_cast<uint8_t>(b))] = b;
  vocabulary["ab"] = 256;
  vocabulary["bc"] = 257;
  vocabulary["<|endoftext|>"] = 258;
  Json json;
  json["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  json["model"] = {{"vocab", vocabulary}, {"merges", {"a b", "b c"}}};
  return json;
}

BpeTokenizer tokenizer_of(const Json& json) {
  return BpeTokenizer(parse_tokenizer_json(json.dump(), "t.json"));
}

// plain_json() with the value at a place ("/model/type") set.
Json with(const char* place, const Json& value) {
  Json json = plain_json();
  json[Json::json_pointer(place)] = value;
  return json;
}

std::string message_of(const Json& json) {
  try {
    tokenizer_of(json);
  } catch (const Error& e) {
    return e.what();
  }
  return "(no error)";
}

Json added(const Json& token) {
  Json whole = {{"content", "<pad>"}, {"id", 259}};
  whole.update(token);
  return with("/added_tokens", Json::array({whole}));
}

}  // namespace

TEST_CASE("tokenizer.json: what would change ids is refused by name") {
  struct Variant {
    const char* place;
    Json value;
    const char* message;
  };
  const Variant kRefused[] = {
      {"/normalizer", {{"type", "NFC"}}, "t.json: has a normalizer"},
      {"/normalizer", "NFC", "has a normalizer"},
      {"/normalizer", Json::array(), "has a normalizer"},
      {"/pre_tokenizer", nullptr, "not ByteLevel"},
      {"/pre_tokenizer/type", "Whitespace", "not ByteLevel"},
      {"/pre_tokenizer/add_prefix_space", true, "add_prefix_space"},
      {"/pre_tokenizer/use_regex", false, "use_regex"},
      {"/model/type", "Unigram", "not BPE"},
      {"/model/dropout", 0.1, "dropout"},
      {"/model/continuing_subword_prefix", "##", "model.continuing_subword_prefix"},
      {"/model/end_of_word_suffix", "</w>", "model.end_of_word_suffix"},
      {"/model/byte_fallback", true, "model.byte_fallback"},
      {"/model/ignore_merges", true, "model.ignore_merges"},
      {"/model/fuse_unk", true, "model.fuse_unk"},
      {"/model/unk_token", "<unk>", "unknown token '<unk>'"},
      {"/added_tokens", Json::object(), "added_tokens is a JSON object"},
  };
  for (const auto& [place, value, message] : kRefused) {
    CAPTURE(place, value.dump());
    CHECK_THAT(message_of(with(place, value)), Contains(message));
  }
  const Variant kTaken[] = {
      {"/normalizer", nullptr, ""},
      {"/pre_tokenizer/use_regex", true, ""},
      {"/model/type", "BPE", ""},
      {"/model/dropout", 0.0, ""},
      {"/model/dropout", nullptr, ""},
      {"/model/continuing_subword_prefix", "", ""},
      {"/model/end_of_word_suffix", nullptr, ""},
      {"/model/byte_fallback", false, ""},
      {"/model/ignore_merges", false, ""},
      {"/model/fuse_unk", false, ""},
      {"/model/unk_token", nullptr, ""},
      {"/added_tokens", nullptr, ""},
  };
  const uint64_t hash = tokenizer_of(plain_json()).hash();
  for (const auto& [place, value, none] : kTaken) {
    CAPTURE(place, value.dump());
    CHECK(message_of(with(place, value)) == "(no error)");
    CHECK(tokenizer_of(with(place, value)).hash() == hash);
  }
}

TEST_CASE("tokenizer.json: added tokens must be plain, whole and of an id of their own") {
  for (const char* key : {"lstrip", "rstrip", "single_word"}) {
    CHECK_THAT(message_of(added({{key, true}})), Contains("'<pad>' sets " + std::string(key)));
    CHECK(message_of(added({{key, false}})) == "(no error)");
  }
  CHECK_THAT(message_of(added({{"content", ""}})), Contains("an added token is empty"));
  CHECK_THAT(message_of(added({{"content", 7}})), Contains("no text 'content'"));
  CHECK_THAT(message_of(added({{"id", "259"}})), Contains("'<pad>' is a string"));
  CHECK_THAT(message_of(added({{"id", -1}})), Contains("'<pad>' is -1"));
  CHECK_THAT(message_of(added({{"id", 256}})), Contains("'<pad>' has the id 256 of 'ab'"));
  CHECK_THAT(message_of(added({{"content", "ab"}, {"id", 259}})), Contains("'ab' has the ids"));
  CHECK(message_of(added({{"content", "ab"}, {"id", 256}})) == "(no error)");
  Json two =
      with("/added_tokens",
           Json::array({{{"content", "<a>"}, {"id", 259}}, {{"content", "<b>"}, {"id", 259}}}));
  CHECK_THAT(message_of(two), Contains("'<b>' has the id 259 of '<a>'"));
}

TEST_CASE("tokenizer.json: the end of text is an added token, or else a word of that name") {
  EncodeOptions special{.recognize_special = true};
  auto plain = tokenizer_of(plain_json());
  CHECK(plain.end_of_text() == 258);
  CHECK(plain.encode("ab<|endoftext|>", special) == Ids{256, 258});
  auto other = tokenizer_of(added({{"content", "<|endoftext|>"}, {"id", 258}}));
  CHECK(other.end_of_text() == 258);
  CHECK(other.hash() == plain.hash());
  auto pad = tokenizer_of(added(Json::object()));  // a list that names others alone
  CHECK(pad.end_of_text() == -1);
  CHECK(pad.encode("ab<pad>", special) == Ids{256, 259});
  CHECK(pad.decode(Ids{256, 259}) == "ab<pad>");
  Json none = plain_json();
  none["model"]["vocab"].erase("<|endoftext|>");
  CHECK(tokenizer_of(none).end_of_text() == -1);
}

TEST_CASE("tokenizer.json: bytes without a token become the unknown one, if there is one") {
  Json json = plain_json();
  auto& vocabulary = json["model"]["vocab"];
  vocabulary.erase("x");
  vocabulary["<unk>"] = 'x';
  uint64_t without = tokenizer_of(json).hash();
  CHECK_THROWS_WITH(tokenizer_of(json).encode("axb"), Contains("byte 0x78 has no token"));
  json["model"]["unk_token"] = "<unk>";
  auto tokenizer = tokenizer_of(json);
  CHECK(tokenizer.encode("axxab") == Ids{'a', 'x', 'x', 256});
  CHECK(tokenizer.decode(tokenizer.encode("axb")) == "a<unk>b");
  CHECK(tokenizer.hash() != without);
}

TEST_CASE("tokenizer.json: a merge named twice has the later rank") {
  Json json = plain_json();
  CHECK(tokenizer_of(json).encode("abc") == Ids{256, 'c'});
  uint64_t once = tokenizer_of(json).hash();
  json["model"]["merges"] = {"a b", "b c", "a b"};  // now behind "b c"
  auto tokenizer = tokenizer_of(json);
  CHECK(tokenizer.encode("abc") == Ids{'a', 257});
  CHECK(tokenizer.encode("ab") == Ids{256});
  CHECK(tokenizer.hash() != once);
  // The same in a long word, where merging goes another way.
  std::string text;
  Ids expected;
  for (int i = 0; i < 50; ++i) {
    text += "abc";
    expected.insert(expected.end(), {'a', 257});
  }
  CHECK(tokenizer.encode(text) == expected);
}

TEST_CASE("the hash of a tokenizer tells apart all that decides ids and texts") {
  BpeDefinition definition = parse_tokenizer_json(plain_json().dump(), "t.json");
  std::vector<uint64_t> hashes{BpeTokenizer(definition).hash()};
  auto changed = [&](auto&& change) {
    BpeDefinition other = definition;
    change(other);
    hashes.push_back(BpeTokenizer(other).hash());
  };
  changed([](BpeDefinition& d) { d.specials.clear(); });  // a word, no special token
  changed([](BpeDefinition& d) { d.specials.push_back({"ab", 256}); });
  changed([](BpeDefinition& d) { d.specials.push_back({"<pad>", 259}); });
  changed([](BpeDefinition& d) { d.vocabulary["abc"] = 259; });
  changed([](BpeDefinition& d) { std::swap(d.vocabulary["ab"], d.vocabulary["bc"]); });
  changed([](BpeDefinition& d) { std::swap(d.merges[0], d.merges[1]); });
  changed([](BpeDefinition& d) { d.merges.pop_back(); });
  changed([](BpeDefinition& d) { d.unknown = "ab"; });
  std::sort(hashes.begin(), hashes.end());
  CHECK(std::adjacent_find(hashes.begin(), hashes.end()) == hashes.end());
}

TEST_CASE("decode refuses ids outside the vocabulary and passes over gaps in it") {
  Json json = plain_json();
  json["model"]["vocab"]["abc"] = 261;  // 259 and 260 are nothing
  auto tokenizer = tokenizer_of(json);
  CHECK(tokenizer.vocabulary_size() == 262);
  CHECK(tokenizer.decode(Ids{256, 260, 261}) == "ababc");
  CHECK_THROWS_WITH(tokenizer.decode(Ids{262}), Contains("token 262 is outside"));
  CHECK_THROWS_WITH(tokenizer.decode(Ids{0, -1}), Contains("token -1 is outside"));
  CHECK(tokenizer.decode(Ids{}).empty());
}
