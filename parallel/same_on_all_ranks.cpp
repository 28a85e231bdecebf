#include "parallel/same_on_all_ranks.h"

#include <algorithm>
#include <fmt/format.h>
#include <map>

#include "core/base/error.h"
#include "parallel/agree.h"
#include "parallel/rank_names.h"

namespace adagate {
namespace {

constexpr size_t kMostClasses = 3;  // ranks that differ in other ways are only counted
constexpr size_t kMostNames = 4;
constexpr size_t kLongestValue = 120;

// Fixed for all versions of the program: another one's ranks must be understood as far as this.
struct Header {
  uint64_t protocol = 0x61646167'61746501;  // "adagate", 1
  uint64_t hash = 0;                        // of the facts
};
constexpr size_t kHeaderWords = sizeof(Header) / sizeof(int64_t);

// FNV-1a: the same in every build, and the text is short.
uint64_t hash_of(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return hash;
}

// Names, values and what is shown, each behind its length.
std::string pack(const std::vector<RankFact>& facts) {
  std::string text;
  for (const RankFact& fact : facts)
    for (const std::string* part : {&fact.name, &fact.value, &fact.shown})
      text += fmt::format("{}:{}", part->size(), *part);
  return text;
}

std::vector<RankFact> unpack(std::string_view text) {
  auto next = [&] {
    size_t size = 0, at = 0;
    while (at < text.size() && text[at] >= '0' && text[at] <= '9')
      size = size * 10 + static_cast<size_t>(text[at++] - '0');
    text.remove_prefix(std::min(text.size(), at + 1));
    std::string part(text.substr(0, size));
    text.remove_prefix(std::min(text.size(), size));
    return part;
  };
  std::vector<RankFact> facts;
  while (!text.empty()) {
    RankFact& fact = facts.emplace_back();
    for (std::string* part : {&fact.name, &fact.value, &fact.shown}) *part = next();
  }
  return facts;
}

// What is compared: not what is shown of it.
std::string compared(const std::vector<RankFact>& facts) {
  std::string text;
  for (const RankFact& fact : facts)
    text += fmt::format("{}:{}{}:{}", fact.name.size(), fact.name, fact.value.size(), fact.value);
  return text;
}

std::string shown(const RankFact& fact) {
  const std::string& text = fact.shown.empty() ? fact.value : fact.shown;
  if (text.empty()) return "empty";
  return text.size() <= kLongestValue ? text : text.substr(0, kLongestValue) + "...";
}

// Ranks with equal facts; the ranks of each class in order, the classes by their first rank.
struct Class {
  std::vector<int> ranks;
  std::vector<RankFact> facts;

  const RankFact* find(const std::string& name) const {
    auto it = std::find_if(facts.begin(), facts.end(), [&](auto& f) { return f.name == name; });
    return it == facts.end() ? nullptr : &*it;
  }
};

std::vector<Class> classes_of(Communicator& ranks, const std::vector<Header>& headers,
                              const std::string& own) {
  std::vector<Class> classes;
  std::map<uint64_t, size_t> by_hash;
  for (int r = 0; r < ranks.size(); ++r) {
    auto [it, is_new] = by_hash.try_emplace(headers[static_cast<size_t>(r)].hash, classes.size());
    if (is_new) classes.emplace_back();
    classes[it->second].ranks.push_back(r);
  }
  for (size_t c = 0; c < std::min(classes.size(), kMostClasses); ++c) {
    int root = classes[c].ranks.front();
    classes[c].facts = unpack(broadcast_text(ranks, own, root));
  }
  return classes;
}

// Names whose values are not the same in all classes, in the order of the first class.
std::vector<std::string> differing_names(const std::vector<Class>& classes) {
  std::vector<std::string> names, differing;
  for (const Class& c : classes)
    for (const RankFact& fact : c.facts)
      if (std::find(names.begin(), names.end(), fact.name) == names.end())
        names.push_back(fact.name);
  for (const std::string& name : names) {
    const RankFact* first = classes.front().find(name);
    bool same = std::all_of(classes.begin(), classes.end(), [&](const Class& c) {
      const RankFact* fact = c.find(name);
      return first && fact && fact->value == first->value;
    });
    if (!same) differing.push_back(name);
  }
  return differing;
}

// " (seed and train.batch differ, too)".
std::string also_differ(const std::vector<std::string>& names) {
  std::string text;
  size_t shown = std::min(names.size(), kMostNames);
  for (size_t i = 0; i < shown; ++i) {
    if (i > 0) text += i + 1 == names.size() ? " and " : ", ";
    text += names[i];
  }
  if (shown < names.size()) text += fmt::format(" and {} more", names.size() - shown);
  return fmt::format(" ({} {}, too)", text, names.size() == 1 ? "differs" : "differ");
}

std::string describe(std::vector<Class> classes, const RankNames& names, std::string_view remedy) {
  size_t uncounted = 0;
  while (classes.size() > kMostClasses) {
    uncounted += classes.back().ranks.size();
    classes.pop_back();
  }
  auto differing = differing_names(classes);
  if (differing.empty()) return fmt::format("the ranks were not started alike: {}", remedy);
  // Ranks that agree on this one are named together, whatever else they differ in.
  std::vector<std::pair<const RankFact*, std::vector<int>>> values;
  for (const Class& c : classes) {
    const RankFact* fact = c.find(differing.front());
    auto same = [&](auto& known) {
      return known.first && fact ? known.first->value == fact->value : known.first == fact;
    };
    auto it = std::find_if(values.begin(), values.end(), same);
    if (it == values.end()) it = values.insert(it, {fact, {}});
    it->second.insert(it->second.end(), c.ranks.begin(), c.ranks.end());
  }
  std::string text = differing.front() + " is ";
  for (auto& [fact, ranks] : values) {
    if (&ranks != &values.front().second) text += ", ";
    std::sort(ranks.begin(), ranks.end());
    text += fmt::format("{} on {}", fact ? shown(*fact) : "unknown", names.of(ranks));
  }
  if (uncounted > 0) text += fmt::format(", {} more differ", uncounted);
  if (differing.size() > 1) text += also_differ({differing.begin() + 1, differing.end()});
  return fmt::format("{}: {}", text, remedy);
}

}  // namespace

RankFact file_fact(std::string name, const std::string& path, uint64_t content_hash) {
  return {std::move(name), fmt::format("{:016x}", content_hash),
          fmt::format("{} (content {:016x})", path, content_hash)};
}

void same_on_all_ranks(Communicator& ranks, const std::vector<RankFact>& facts,
                       std::string_view remedy) {
  if (ranks.size() == 1) return;
  std::string own = pack(facts);
  Header header;
  header.hash = hash_of(compared(facts));
  std::vector<Header> headers(static_cast<size_t>(ranks.size()));
  ranks.all_gather(&header, headers.data(), kHeaderWords, DType::i64);
  auto same = [&](const Header& other) {
    return other.protocol == header.protocol && other.hash == header.hash;
  };
  if (std::all_of(headers.begin(), headers.end(), same)) return;
  RankNames names(ranks);
  for (int r = 0; r < ranks.size(); ++r)
    check(headers[static_cast<size_t>(r)].protocol == header.protocol,
          "{} runs another version of adagate than {}: install the same program on all hosts",
          names.of(r), names.of(0));
  fail("{}", describe(classes_of(ranks, headers, own), names, remedy));
}

}  // namespace adagate
