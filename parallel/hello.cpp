#include "parallel/hello.h"

#include <algorithm>
#include <cstring>
#include <fmt/ranges.h>
#include <map>
#include <set>
#include <sstream>
#include <time.h>

#include "parallel/clock.h"
#include "parallel/mpi_calls.h"

namespace adagate {
namespace {

constexpr int kHelloTag = 1, kHeardTag = 2;
// Rank 0 waits so long for the reports of the others, and they for its word that it has told.
constexpr int64_t kReportNs = 3'000'000'000, kToldNs = 8'000'000'000;

struct HelloMessage {
  char host[64] = {};
  int32_t exit_code = 0;
  char error[1024] = {};
};

template <size_t N>
void put(char (&to)[N], const std::string& text) {
  std::memcpy(to, text.data(), std::min(text.size(), N - 1));
}

void nap() {
  timespec millisecond{0, 1'000'000};
  nanosleep(&millisecond, nullptr);
}

// Point-to-point messages among all ranks of MPI_COMM_WORLD, before there is anything else.
class Greeting {
 public:
  Greeting() {
    ADAGATE_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &rank_));
    ADAGATE_MPI(MPI_Comm_size(MPI_COMM_WORLD, &size_));
    hellos_.resize(static_cast<size_t>(size_));
    nothing_.resize(static_cast<size_t>(size_));
  }
  int rank() const { return rank_; }
  int size() const { return size_; }
  const HelloMessage& hello(int r) const { return hellos_[static_cast<size_t>(r)]; }

  // Says `own` to all and waits for theirs, then tells all that it has them and waits until all
  // have. False when the time is up before.
  bool meet(const HelloMessage& own, double seconds) {
    own_ = own;
    hellos_[static_cast<size_t>(rank_)] = own;
    int64_t end = now_ns() + static_cast<int64_t>(seconds * 1e9);
    post(kHelloTag, hellos_.data(), &own_, sizeof own_);
    if (!finish(seconds, end)) {
      note_silent();
      return false;
    }
    post(kHeardTag, nothing_.data(), nothing_.data() + rank_, 1);
    return finish(seconds, end);
  }
  // Ranks that have said nothing. A rank that only does not know of all others yet is not silent.
  const std::vector<int>& silent() const { return silent_; }

 private:
  template <class T>
  void post(int tag, T* in, const T* out, int bytes) {
    auto n = static_cast<size_t>(size_);
    received_.assign(n, MPI_REQUEST_NULL);
    sent_.assign(n, MPI_REQUEST_NULL);
    for (int r = 0; r < size_; ++r) {
      auto i = static_cast<size_t>(r);
      if (r == rank_) continue;
      ADAGATE_MPI(MPI_Irecv(in + r, bytes, MPI_BYTE, r, tag, MPI_COMM_WORLD, &received_[i]));
      ADAGATE_MPI(MPI_Isend(out, bytes, MPI_BYTE, r, tag, MPI_COMM_WORLD, &sent_[i]));
    }
  }
  bool finish(double seconds, int64_t end) {
    while (true) {
      int in = 0, out = 0;
      ADAGATE_MPI(MPI_Testall(size_, received_.data(), &in, MPI_STATUSES_IGNORE));
      ADAGATE_MPI(MPI_Testall(size_, sent_.data(), &out, MPI_STATUSES_IGNORE));
      if (in && out) return true;
      if (seconds > 0 && now_ns() > end) return false;
      nap();
    }
  }
  void note_silent() {
    for (int r = 0; r < size_; ++r) {
      // Testall leaves the requests that are finished as they are, until all are.
      int done = 0;
      MPI_Test(&received_[static_cast<size_t>(r)], &done, MPI_STATUS_IGNORE);
      if (!done) silent_.push_back(r);
    }
  }

  int rank_ = 0, size_ = 1;
  HelloMessage own_;
  std::vector<HelloMessage> hellos_;
  std::vector<char> nothing_;
  std::vector<MPI_Request> received_, sent_;
  std::vector<int> silent_;
};

std::string name_of_report(int rank) {
  return fmt::format("adagate-start-{}", rank);
}
constexpr const char* kToldName = "adagate-start-told";

bool publish(const std::string& name, const std::string& text) {
  return MPI_Publish_name(name.c_str(), MPI_INFO_NULL, text.c_str()) == MPI_SUCCESS;
}

// Empty while nobody has published it.
std::string look_up(const std::string& name) {
  char text[MPI_MAX_PORT_NAME + 1] = {};
  bool found = MPI_Lookup_name(name.c_str(), MPI_INFO_NULL, text) == MPI_SUCCESS;
  return found ? text : "";
}

std::string to_text(const StartReport& report) {
  std::string text = fmt::format("{} {}", report.host, fmt::join(report.silent, " "));
  return text.substr(0, MPI_MAX_PORT_NAME - 1);
}

StartReport from_text(int rank, const std::string& text) {
  StartReport report{rank, "", {}};
  std::istringstream in(text);
  in >> report.host;
  for (int r; in >> r;) report.silent.push_back(r);
  return report;
}

std::vector<StartReport> collect_reports(const StartReport& own, int ranks) {
  std::vector<StartReport> reports{own};
  std::set<int> missing;
  for (int r = 0; r < ranks; ++r)
    if (r != own.rank) missing.insert(r);
  for (int64_t end = now_ns() + kReportNs; !missing.empty() && now_ns() < end; nap())
    for (auto it = missing.begin(); it != missing.end();) {
      std::string text = look_up(name_of_report(*it));
      if (!text.empty()) reports.push_back(from_text(*it, text));
      it = text.empty() ? std::next(it) : missing.erase(it);
    }
  return reports;
}

[[noreturn]] void fail_unreachable(const Greeting& greeting, const Hello& own, double seconds,
                                   bool& told) {
  StartReport report{greeting.rank(), own.host, greeting.silent()};
  bool published = publish(name_of_report(report.rank), to_text(report));
  if (report.rank == 0) {
    std::vector<StartReport> reports{report};
    if (published) reports = collect_reports(report, greeting.size());
    std::string message = unreachable_message(reports, greeting.size(), seconds);
    publish(kToldName, "told");
    throw Error(message);
  }
  for (int64_t end = now_ns() + kToldNs; published && !told && now_ns() < end; nap())
    told = !look_up(kToldName).empty();
  throw Error(unreachable_message({report}, greeting.size(), seconds));
}

}  // namespace

std::vector<Hello> exchange_hellos(const Hello& own, double seconds, bool& told) {
  Greeting greeting;
  HelloMessage message;
  put(message.host, own.host);
  put(message.error, own.error);
  message.exit_code = own.exit_code;
  if (!greeting.meet(message, seconds)) fail_unreachable(greeting, own, seconds, told);
  std::vector<Hello> all;
  for (int r = 0; r < greeting.size(); ++r) {
    const HelloMessage& theirs = greeting.hello(r);
    all.push_back({theirs.host, theirs.exit_code, theirs.error});
  }
  return all;
}

std::string unreachable_message(const std::vector<StartReport>& reports, int ranks,
                                double seconds) {
  std::vector<std::string> names;
  for (int r = 0; r < ranks; ++r) names.push_back(fmt::format("the host of rank {}", r));
  for (const StartReport& r : reports)
    if (!r.host.empty()) names[static_cast<size_t>(r.rank)] = r.host;
  std::set<std::string> pairs, quiet;
  for (const StartReport& report : reports)
    for (int r : report.silent) {
      if (r < 0 || r >= ranks) continue;
      std::string a = names[static_cast<size_t>(report.rank)], b = names[static_cast<size_t>(r)];
      if (a == b) quiet.insert(fmt::format("rank {} of {}", r, a));
      if (a != b) pairs.insert(fmt::format("{} and {}", std::min(a, b), std::max(a, b)));
    }
  static constexpr size_t kMostNamed = 4;
  auto listed = [](const std::set<std::string>& all) {
    std::vector<std::string> shown(
        all.begin(),
        std::next(all.begin(), static_cast<std::ptrdiff_t>(std::min(all.size(), kMostNamed))));
    if (all.size() > kMostNamed) shown.push_back(fmt::format("{} more", all.size() - kMostNamed));
    return fmt::format("{}", fmt::join(shown, ", "));
  };
  if (pairs.empty())
    return fmt::format("the ranks do not hear of each other: nothing from {} within {:g} s",
                       quiet.empty() ? "some of them" : listed(quiet), seconds);
  return fmt::format(
      "the hosts can't reach each other: no MPI message between {} within {:g} s. MPI may have "
      "chosen a network interface that does not lead there (docker0, virbr0); name the one that "
      "does (ip -br address lists them): mpirun --mca btl_tcp_if_include IFACE --mca "
      "oob_tcp_if_include IFACE ... On a slow network raise parallel.start_timeout "
      "(--start-timeout)",
      listed(pairs), seconds);
}

}  // namespace adagate
