#include "parallel/agree.h"

#include <vector>

#include "parallel/rank_names.h"

namespace adagate {
namespace {

// " [rank 1, host b]" when the others had no error of their own: their files, disks and
// environment are others. An error of rank 0 alone on one host is mostly that of work which it does
// for all.
std::string where(Communicator& ranks, bool failed) {
  std::vector<int64_t> flags(static_cast<size_t>(ranks.size()));
  int64_t flag = failed;
  ranks.all_gather(&flag, flags.data(), 1, DType::i64);
  RankNames names(ranks);
  std::vector<int> failing;
  for (int r = 0; r < ranks.size(); ++r)
    if (flags[static_cast<size_t>(r)] != 0) failing.push_back(r);
  bool all = failing.size() == flags.size();
  if (all || (failing.back() == 0 && !names.several_hosts())) return "";
  return " [on " + names.of(failing) + "]";
}

}  // namespace

std::string broadcast_text(Communicator& ranks, std::string text, int root) {
  auto length = static_cast<int64_t>(text.size());
  ranks.broadcast(&length, 1, DType::i64, root);
  text.resize(static_cast<size_t>(length));
  if (length > 0) ranks.broadcast(text.data(), length, DType::u8, root);
  return text;
}

void agree(Communicator& ranks, const std::string& error, int exit_code) {
  // One reduction when all is well.
  int64_t failing = error.empty() ? ranks.size() : ranks.rank();
  ranks.all_reduce(&failing, 1, DType::i64, ReduceOp::min);
  if (failing == ranks.size()) return;
  int root = static_cast<int>(failing);
  int64_t code = exit_code;
  ranks.broadcast(&code, 1, DType::i64, root);
  std::string message = broadcast_text(ranks, error, root);
  throw Error(message + where(ranks, !error.empty()), static_cast<int>(code));
}

}  // namespace adagate
