#include "parallel/thread_communicator.h"

#include <algorithm>
#include <exception>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "parallel/host_pages.h"
#include "parallel/parts.h"
#include "parallel/shared_group.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace adagate {
namespace {

class ThreadMemory final : public PeerMemory {
 public:
  BufferName name(const void* data) const override {
    // A group of threads maps everything; an empty buffer may be null, which would read as
    // unmapped.
    return {0, data ? reinterpret_cast<uint64_t>(data) : reinterpret_cast<uint64_t>(&nothing_)};
  }
  void* map(int, BufferName name) const override { return reinterpret_cast<void*>(name.offset); }
  bool can_copy() const override { return false; }
  int copy_from(int, BufferName, int64_t, void*, int64_t) const override { return 0; }

 private:
  uint64_t nothing_ = 0;
};

struct World {
  explicit World(int ranks)
      : status(static_cast<size_t>(ranks)), boards(static_cast<size_t>(ranks)) {}
  FailureRecord failure;
  std::vector<RankStatus> status;
  std::vector<RankBoard> boards;
  std::exception_ptr first_error;  // written by the rank that claimed the failure
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<RankContext> context, std::shared_ptr<SharedGroup> group)
      : context_(std::move(context)), group_(std::move(group)) {}

  std::string_view name() const override { return "threads"; }
  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }

  std::unique_ptr<Communicator> split(int color, int key) override;

  void all_reduce(void* data, int64_t count, DType dtype, ReduceOp op) override {
    group_->all_reduce(data, count, dtype, op);
  }
  std::unique_ptr<Request> all_reduce_async(void* data, int64_t count, DType dtype,
                                            ReduceOp op) override {
    return group_->all_reduce_async(data, count, dtype, op, nullptr);
  }
  void all_gather(const void* send, void* recv, int64_t count, DType dtype) override {
    group_->all_gather(send, recv, count, dtype);
  }
  std::unique_ptr<Request> all_gather_async(const void* send, void* recv,
                                            std::span<const int64_t> counts, DType dtype) override {
    auto starts = part_starts(counts, size(), "all_gather_async");
    return group_->all_gather_async(send, recv, std::move(starts), dtype, nullptr);
  }
  void reduce_scatter(const void* send, void* recv, int64_t count, DType dtype,
                      ReduceOp op) override {
    group_->reduce_scatter(send, recv, count, dtype, op);
  }
  std::unique_ptr<Request> reduce_scatter_async(const void* send, void* recv,
                                                std::span<const int64_t> counts, DType dtype,
                                                ReduceOp op) override {
    auto starts = part_starts(counts, size(), "reduce_scatter_async");
    return group_->reduce_scatter_async(send, recv, std::move(starts), dtype, op, nullptr);
  }
  void broadcast(void* data, int64_t count, DType dtype, int root) override {
    group_->broadcast(data, count, dtype, root);
  }
  void all_to_all_v(const AllToAllV& exchange) override { group_->all_to_all_v(exchange); }
  void barrier() override { group_->barrier(); }
  std::shared_ptr<void> allocate(size_t bytes) override { return allocate_host_pages(bytes); }

  // A thread cannot end its process's other threads: they throw, and so does this one.
  [[noreturn]] void abort(int exit_code, std::string_view message) override {
    throw Error(std::string(message), exit_code);
  }

 private:
  std::shared_ptr<RankContext> context_;
  std::shared_ptr<SharedGroup> group_;
};

std::unique_ptr<Communicator> ThreadCommunicator::split(int color, int key) {
  struct Entry {
    int64_t color, key, rank;
  };
  std::vector<Entry> all(static_cast<size_t>(size()));
  Entry mine{color, key, rank()};
  static_assert(sizeof(Entry) == 24);
  // As for MPI_Comm_split: ranks of a color, by key and then by their place here.
  all_gather(&mine, all.data(), 3, DType::i64);

  std::erase_if(all, [&](const Entry& e) { return e.color != color; });
  std::sort(all.begin(), all.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.key, a.rank) < std::pair(b.key, b.rank);
  });
  std::vector<int> members;
  int new_rank = 0;
  for (const Entry& e : all) {
    if (e.rank == rank()) new_rank = static_cast<int>(members.size());
    members.push_back(group_->member(static_cast<int>(e.rank)));
  }
  // The first of the group makes its boards; the others copy the handle while it waits for them.
  std::shared_ptr<std::vector<RankBoard>> boards;
  if (new_rank == 0) boards = std::make_shared<std::vector<RankBoard>>(members.size());
  auto handle = reinterpret_cast<int64_t>(&boards);
  std::vector<int64_t> handles(static_cast<size_t>(size()));
  all_gather(&handle, handles.data(), 1, DType::i64);
  if (new_rank != 0) {
    auto leader = static_cast<size_t>(all[0].rank);
    boards = *reinterpret_cast<std::shared_ptr<std::vector<RankBoard>>*>(handles[leader]);
  }
  // The pointer above is into the first rank's stack: it stays until all have copied.
  barrier();
  auto group = std::make_shared<SharedGroup>(context_, boards->data(), members, new_rank,
                                             std::make_shared<ThreadMemory>(), boards);
  return std::make_unique<ThreadCommunicator>(context_, group);
}

void use_core_share(int ranks) {
#ifdef _OPENMP
  omp_set_num_threads(std::max(1, omp_get_num_procs() / ranks));
#else
  (void)ranks;
#endif
}

void run_rank(int rank, std::shared_ptr<World> world,
              const std::function<void(std::shared_ptr<Communicator>)>& body) {
  auto ranks = static_cast<int>(world->boards.size());
  std::vector<int> everyone(static_cast<size_t>(ranks));
  for (int r = 0; r < ranks; ++r) everyone[static_cast<size_t>(r)] = r;
  auto context = std::make_shared<RankContext>(&world->failure, world->status.data(), ranks,
                                               everyone, rank, world);
  // More ranks than processors: who spins keeps the one it waits for from running.
  context->set_spinning(ranks <= static_cast<int>(std::thread::hardware_concurrency()));
  bind_status(&context->own_status(), false);
  use_core_share(ranks);
  try {
    auto group = std::make_shared<SharedGroup>(context, world->boards.data(), everyone, rank,
                                               std::make_shared<ThreadMemory>(), world);
    body(std::make_shared<ThreadCommunicator>(context, group));
  } catch (const Error& e) {
    if (world->failure.claim(rank, e.exit_code(), e.what()))
      world->first_error =
          std::make_exception_ptr(Error(fmt::format("rank {}: {}", rank, e.what()), e.exit_code()));
  } catch (const std::exception& e) {
    if (world->failure.claim(rank, 1, e.what()))
      world->first_error =
          std::make_exception_ptr(Error(fmt::format("rank {}: {}", rank, e.what())));
  } catch (...) {
    if (world->failure.claim(rank, 1, "unknown error"))
      world->first_error = std::current_exception();
  }
  // Ranks that still wait for this one are told that it will not come.
  context->own_status().left.store(1, std::memory_order_release);
  bind_status(nullptr, false);
}

}  // namespace

void run_ranks(int ranks, const std::function<void(std::shared_ptr<Communicator>)>& body) {
  check(ranks >= 1, "run_ranks: {} ranks; at least one is needed", ranks);
  auto world = std::make_shared<World>(ranks);
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) threads.emplace_back(run_rank, r, world, std::cref(body));
  for (auto& t : threads) t.join();
  if (world->first_error) std::rethrow_exception(world->first_error);
}

}  // namespace adagate
