#include "parallel/agree.h"

namespace adagate {

void agree(Communicator& ranks, const std::string& error) {
  // Lowest failing rank and its message's length in one reduction each; nothing more when all is
  // well.
  int64_t failing = error.empty() ? ranks.size() : ranks.rank();
  ranks.all_reduce(&failing, 1, DType::i64, ReduceOp::min);
  if (failing == ranks.size()) return;
  int root = static_cast<int>(failing);
  auto length = static_cast<int64_t>(error.size());
  ranks.broadcast(&length, 1, DType::i64, root);
  std::string message = error;
  message.resize(static_cast<size_t>(length));
  ranks.broadcast(message.data(), length, DType::u8, root);
  throw Error(message);
}

}  // namespace adagate
