#include "parallel/rank_names.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <unistd.h>

namespace adagate {
namespace {

constexpr size_t kHostBytes = 64;  // Linux allows as many
constexpr size_t kMostNamed = 4;

// "a", "a and b", "a, b, c and 9 more".
std::string enumerate(const std::vector<std::string>& words) {
  size_t shown = words.size() <= kMostNamed ? words.size() : kMostNamed - 1;
  std::string text;
  for (size_t i = 0; i < shown; ++i) {
    if (i > 0) text += i + 1 == words.size() ? " and " : ", ";
    text += words[i];
  }
  if (shown < words.size()) text += fmt::format(" and {} more", words.size() - shown);
  return text;
}

}  // namespace

std::string host_name() {
  std::array<char, kHostBytes + 1> name{};
  if (gethostname(name.data(), kHostBytes) != 0 || name[0] == '\0') return "unnamed";
  std::string whole = name.data();
  return whole.substr(0, whole.find('.'));
}

RankNames::RankNames(Communicator& ranks, const std::string& host) {
  std::array<char, kHostBytes> own{};
  host.copy(own.data(), kHostBytes - 1);
  auto n = static_cast<size_t>(ranks.size());
  std::vector<char> all(n * kHostBytes);
  ranks.all_gather(own.data(), all.data(), kHostBytes, DType::u8);
  for (size_t r = 0; r < n; ++r) hosts_.emplace_back(all.data() + r * kHostBytes);
}

bool RankNames::several_hosts() const {
  return std::any_of(hosts_.begin(), hosts_.end(),
                     [&](const std::string& host) { return host != hosts_.front(); });
}

std::string RankNames::of(std::span<const int> ranks) const {
  std::vector<std::string> numbers, hosts;
  for (int rank : ranks) {
    numbers.push_back(std::to_string(rank));
    if (std::find(hosts.begin(), hosts.end(), host(rank)) == hosts.end())
      hosts.push_back(host(rank));
  }
  std::string text = (numbers.size() == 1 ? "rank " : "ranks ") + enumerate(numbers);
  if (!several_hosts()) return text;
  return text + (hosts.size() == 1 ? " (host " : " (hosts ") + enumerate(hosts) + ")";
}

}  // namespace adagate
