// The group of one: every collective is the identity.
#include <cstdio>
#include <cstdlib>

#include "core/base/error.h"
#include "parallel/bytes.h"
#include "parallel/communicator.h"
#include "parallel/finished_request.h"
#include "parallel/host_pages.h"
#include "parallel/parts.h"

namespace adagate {
namespace {

class SelfCommunicator final : public Communicator {
 public:
  std::string_view name() const override { return "self"; }
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::unique_ptr<Communicator> split(int, int) override { return make_self_communicator(); }

  void all_reduce(void*, int64_t, DType, ReduceOp) override {}
  std::unique_ptr<Request> all_reduce_async(void*, int64_t, DType, ReduceOp) override {
    return std::make_unique<FinishedRequest>();
  }
  void all_gather(const void* send, void* recv, int64_t count, DType dtype) override {
    copy_bytes(recv, send, bytes_of(count, dtype));
  }
  std::unique_ptr<Request> all_gather_async(const void* send, void* recv,
                                            std::span<const int64_t> counts, DType dtype) override {
    copy_bytes(recv, send, bytes_of(part_starts(counts, 1, "all_gather_async")[1], dtype));
    return std::make_unique<FinishedRequest>();
  }
  void reduce_scatter(const void* send, void* recv, int64_t count, DType dtype, ReduceOp) override {
    copy_bytes(recv, send, bytes_of(count, dtype));
  }
  std::unique_ptr<Request> reduce_scatter_async(const void* send, void* recv,
                                                std::span<const int64_t> counts, DType dtype,
                                                ReduceOp) override {
    copy_bytes(recv, send, bytes_of(part_starts(counts, 1, "reduce_scatter_async")[1], dtype));
    return std::make_unique<FinishedRequest>();
  }
  void broadcast(void*, int64_t, DType, int root) override {
    check(root == 0, "broadcast: root {} in a group of 1 rank", root);
  }
  void all_to_all_v(const AllToAllV& x) override {
    check(x.send_rows.size() == 1 && x.recv_rows.size() == 1,
          "all_to_all_v: {} send and {} receive counts in a group of 1 rank", x.send_rows.size(),
          x.recv_rows.size());
    check(x.send_rows[0] == x.recv_rows[0],
          "all_to_all_v: rank 0 sends {} rows to rank 0, which expects {}", x.send_rows[0],
          x.recv_rows[0]);
    copy_bytes(x.recv, x.send, x.send_rows[0] * x.row_bytes);
  }
  void barrier() override {}
  std::shared_ptr<void> allocate(size_t bytes) override { return allocate_host_pages(bytes); }

  [[noreturn]] void abort(int exit_code, std::string_view message) override {
    std::fprintf(stderr, "%.*s\n", static_cast<int>(message.size()), message.data());
    std::fflush(nullptr);
    std::_Exit(exit_code);
  }
};

}  // namespace

std::unique_ptr<Communicator> make_self_communicator() {
  return std::make_unique<SelfCommunicator>();
}

}  // namespace adagate
