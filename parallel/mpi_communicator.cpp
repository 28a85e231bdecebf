#include "parallel/mpi_communicator.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <unistd.h>

#include "core/base/error.h"
#include "parallel/bytes.h"
#include "parallel/host_pages.h"
#include "parallel/mpi_transport.h"
#include "parallel/node_link.h"
#include "parallel/parts.h"
#include "parallel/placement.h"
#include "parallel/shared_group.h"
#include "parallel/shared_segment.h"

namespace adagate {
namespace {

struct NodeBoard {
  FailureRecord failure;
  RankStatus status[1];  // one per rank of the world; of other nodes what they last showed
};

// The ranks of this rank's node, and how they reach each other.
struct Node {
  std::vector<int> world_ranks;  // ascending; the index in it names a rank on the node
  int self = 0;
  NodeBoard* board = nullptr;
  std::shared_ptr<void> board_memory;
  std::shared_ptr<RankContext> context;
  std::shared_ptr<ProcessMemory> memory;  // null: no shared memory
  std::shared_ptr<NodeLink> link;         // null: there is no other node
  uint32_t segments_made = 0;

  // -1: on another node.
  int index_of(int world_rank) const {
    auto it = std::lower_bound(world_ranks.begin(), world_ranks.end(), world_rank);
    if (it == world_ranks.end() || *it != world_rank) return -1;
    return static_cast<int>(it - world_ranks.begin());
  }
};

MPI_Comm duplicate(MPI_Comm comm) {
  MPI_Comm copy;
  ADAGATE_MPI(MPI_Comm_dup(comm, &copy));
  return copy;
}

template <class T>
std::vector<T> gather(MPI_Comm comm, T mine) {
  static_assert(sizeof(T) == 8 || sizeof(T) == 4);
  int size;
  ADAGATE_MPI(MPI_Comm_size(comm, &size));
  std::vector<T> all(static_cast<size_t>(size));
  ADAGATE_MPI(MPI_Allgather(&mine, sizeof(T), MPI_BYTE, all.data(), sizeof(T), MPI_BYTE, comm));
  return all;
}

bool all_true(MPI_Comm comm, bool mine) {
  auto votes = gather<int>(comm, mine);
  return std::all_of(votes.begin(), votes.end(), [](int v) { return v != 0; });
}

// A rank without shared memory is a node of its own.
void make_lonely_context(Node& node, int world_rank, int world_size, size_t board_bytes) {
  auto memory = allocate_host_pages(board_bytes);
  auto* board = static_cast<NodeBoard*>(memory.get());
  new (&board->failure) FailureRecord;
  node.world_ranks = {world_rank};
  node.self = 0;
  node.context = std::make_shared<RankContext>(&board->failure, board->status, world_size,
                                               node.world_ranks, 0, memory);
  node.board = board;
  node.board_memory = memory;
}

// Collective over MPI_COMM_WORLD.
void make_link(Node& node) {
  auto first_ranks = gather<int>(MPI_COMM_WORLD, node.world_ranks.front());
  if (std::all_of(first_ranks.begin(), first_ranks.end(), [](int r) { return r == 0; })) return;
  node.link =
      std::make_shared<NodeLink>(duplicate(MPI_COMM_WORLD), first_ranks, &node.board->failure,
                                 node.board->status, node.board_memory);
  node.context->set_link(node.link);
}

uint64_t g_probe = 0;  // what peers read to find out whether they may

void test_copying(Node& node, MPI_Comm node_comm, bool wanted) {
  g_probe = 0x5eed0ada6a7e0001;
  auto addresses = gather(node_comm, reinterpret_cast<uint64_t>(&g_probe));
  bool works = wanted && node.memory->probe(addresses, g_probe);
  node.memory->set_can_copy(all_true(node_comm, works));
}

std::shared_ptr<Node> make_node(const MpiOptions& options, const std::vector<std::string>& hosts) {
  auto node = std::make_shared<Node>();
  int world_rank, world_size, ranks;
  MPI_Comm comm;
  ADAGATE_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &world_rank));
  ADAGATE_MPI(MPI_Comm_size(MPI_COMM_WORLD, &world_size));
  ADAGATE_MPI(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &comm));
  MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
  ADAGATE_MPI(MPI_Comm_rank(comm, &node->self));
  ADAGATE_MPI(MPI_Comm_size(comm, &ranks));
  node->world_ranks = gather<int>(comm, world_rank);
  auto process_ids = gather<int64_t>(comm, getpid());

  std::shared_ptr<std::byte> memory;
  size_t bytes = sizeof(NodeBoard) + sizeof(RankStatus) * static_cast<size_t>(world_size);
  if (options.shared_memory) memory = map_shared_segment(comm, bytes, 0, node->self ? 0 : bytes);
  if (memory) {
    // Pages are zero, which is the initial state of every member but these.
    auto* board = node->board = reinterpret_cast<NodeBoard*>(memory.get());
    if (node->self == 0) new (&board->failure) FailureRecord;
    new (board->status + world_rank) RankStatus;
    ADAGATE_MPI(MPI_Barrier(comm));
    node->context = std::make_shared<RankContext>(&board->failure, board->status, world_size,
                                                  node->world_ranks, node->self, memory);
    node->board_memory = memory;
    node->context->watch_processes(process_ids);
    node->context->set_spinning(ranks <= plan_placement(1).node_cpus);
    node->memory = std::make_shared<ProcessMemory>(node->self, process_ids);
    test_copying(*node, comm, options.copy_from_peers);
  } else {
    make_lonely_context(*node, world_rank, world_size, bytes);
  }
  node->context->set_hosts(hosts);
  make_link(*node);
  bind_status(&node->context->own_status(), true);
  MPI_Comm_free(&comm);
  return node;
}

// Null when the ranks of `comm` do not share memory.
std::shared_ptr<SharedGroup> make_group(MPI_Comm comm, Node& node) {
  int world_rank, rank;
  ADAGATE_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &world_rank));
  ADAGATE_MPI(MPI_Comm_rank(comm, &rank));
  auto world_ranks = gather<int>(comm, world_rank);
  std::vector<int> members;
  for (int r : world_ranks) members.push_back(node.index_of(r));
  bool together = std::find(members.begin(), members.end(), -1) == members.end();
  if (!all_true(comm, together && node.memory)) return nullptr;

  size_t bytes = sizeof(RankBoard) * members.size();
  std::shared_ptr<std::byte> memory;
  if (members.size() == 1) {
    memory = std::static_pointer_cast<std::byte>(allocate_host_pages(bytes));
  } else {
    auto own = static_cast<size_t>(rank);
    memory = map_shared_segment(comm, bytes, own * sizeof(RankBoard), sizeof(RankBoard));
  }
  if (!memory) return nullptr;
  auto* boards = reinterpret_cast<RankBoard*>(memory.get());
  new (boards + rank) RankBoard;
  ADAGATE_MPI(MPI_Barrier(comm));
  return std::make_shared<SharedGroup>(node.context, boards, members, rank, node.memory, memory);
}

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(MPI_Comm comm, std::shared_ptr<Node> node) : node_(std::move(node)) {
    MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    transport_ = std::make_shared<MpiTransport>(comm, duplicate(comm), node_->context);
    group_ = make_group(comm, *node_);
  }

  std::string_view name() const override { return "mpi"; }
  int rank() const override { return transport_->rank(); }
  int size() const override { return transport_->size(); }

  std::unique_ptr<Communicator> split(int color, int key) override {
    check(color >= 0, "split: colour {}; it must not be negative", color);
    barrier();  // bounded, unlike the call below
    MPI_Comm part;
    ADAGATE_MPI(MPI_Comm_split(transport_->comm(), color, key, &part));
    return std::make_unique<MpiCommunicator>(part, node_);
  }

  void all_reduce(void* data, int64_t count, DType dtype, ReduceOp op) override {
    if (group_ && group_->all_reduce(data, count, dtype, op)) return;
    transport_->all_reduce(data, count, dtype, op);
  }
  std::unique_ptr<Request> all_reduce_async(void* data, int64_t count, DType dtype,
                                            ReduceOp op) override {
    auto messages = [=, transport = transport_] {
      return transport->all_reduce_async(data, count, dtype, op);
    };
    return group_ ? group_->all_reduce_async(data, count, dtype, op, messages) : messages();
  }
  void all_gather(const void* send, void* recv, int64_t count, DType dtype) override {
    if (group_ && group_->all_gather(send, recv, count, dtype)) return;
    transport_->all_gather(send, recv, bytes_of(count, dtype));
  }
  std::unique_ptr<Request> all_gather_async(const void* send, void* recv,
                                            std::span<const int64_t> counts, DType dtype) override {
    auto starts = part_starts(counts, size(), "all_gather_async");
    auto messages = [=, transport = transport_] {
      return transport->all_gather_async(send, recv, starts, dtype);
    };
    return group_ ? group_->all_gather_async(send, recv, starts, dtype, messages) : messages();
  }
  void reduce_scatter(const void* send, void* recv, int64_t count, DType dtype,
                      ReduceOp op) override {
    if (group_ && group_->reduce_scatter(send, recv, count, dtype, op)) return;
    transport_->reduce_scatter(send, recv, count, dtype, op);
  }
  std::unique_ptr<Request> reduce_scatter_async(const void* send, void* recv,
                                                std::span<const int64_t> counts, DType dtype,
                                                ReduceOp op) override {
    auto starts = part_starts(counts, size(), "reduce_scatter_async");
    auto messages = [=, transport = transport_] {
      return transport->reduce_scatter_async(send, recv, starts, dtype, op);
    };
    return group_ ? group_->reduce_scatter_async(send, recv, starts, dtype, op, messages)
                  : messages();
  }
  void broadcast(void* data, int64_t count, DType dtype, int root) override {
    if (group_ && group_->broadcast(data, count, dtype, root)) return;
    transport_->broadcast(data, bytes_of(count, dtype), root);
  }
  void all_to_all_v(const AllToAllV& exchange) override {
    if (group_ && group_->all_to_all_v(exchange)) return;
    transport_->all_to_all_v(exchange);
  }
  void barrier() override {
    if (group_)
      group_->barrier();
    else
      transport_->barrier();
  }

  std::shared_ptr<void> allocate(size_t bytes) override;
  [[noreturn]] void abort(int exit_code, std::string_view message) override;
  FailureRecord& failure() const { return node_->context->failure(); }
  // True when the failure is this rank's own: the first of its node.
  bool report_failure(int exit_code, std::string_view message) {
    bool own = failure().claim(node_->context->own_world_rank(), exit_code, message);
    if (own && node_->link) node_->link->announce_failure();
    return own;
  }
  bool is_told() {
    if (node_->link) node_->link->progress();
    return failure().told.load() != 0;
  }
  bool claim_telling() { return failure().told.exchange(1) == 0; }
  void note_told() {
    if (!node_->link) return;
    node_->link->announce_told();
    node_->link->flush();
  }
  void leave() { node_->context->own_status().left.store(1); }

 private:
  std::shared_ptr<Node> node_;
  std::shared_ptr<MpiTransport> transport_;
  std::shared_ptr<SharedGroup> group_;
};

std::shared_ptr<void> MpiCommunicator::allocate(size_t bytes) {
  auto largest = static_cast<size_t>(max<int64_t>(static_cast<int64_t>(bytes)));
  auto n = static_cast<size_t>(size());
  size_t part = round_up(std::max<size_t>(largest, 64), largest >= kHugePage ? kHugePage : 4096);
  std::shared_ptr<std::byte> base;
  if (group_ && n > 1)
    base =
        map_shared_segment(transport_->comm(), part * n, part * static_cast<size_t>(rank()), part);
  if (!base) return allocate_host_pages(bytes);

  // The first rank's name and count make the number one that no other group gives.
  int64_t id =
      ((static_cast<int64_t>(node_->context->own_world_rank()) + 1) << 32) + ++node_->segments_made;
  broadcast(&id, 1, DType::i64, 0);
  Segment segment{static_cast<uint64_t>(id), base.get() + part * static_cast<size_t>(rank()), part,
                  std::vector<std::byte*>(node_->world_ranks.size(), nullptr)};
  for (size_t r = 0; r < n; ++r)
    segment.parts[static_cast<size_t>(group_->member(static_cast<int>(r)))] = base.get() + part * r;
  auto* own = const_cast<std::byte*>(segment.own);
  node_->memory->add(std::move(segment));
  return {own,
          [base, id, memory = node_->memory](void*) { memory->remove(static_cast<uint64_t>(id)); }};
}

void MpiCommunicator::abort(int exit_code, std::string_view message) {
  bool own = report_failure(exit_code, message);
  auto wait_until_told = [&](int milliseconds) {
    for (int ms = 0; ms < milliseconds && !is_told(); ms += 5)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
  };
  // Ranks that fail alike at the same time leave it to rank 0.
  if (own && node_->context->own_world_rank() > 0) wait_until_told(300);
  if (own && !is_told() && claim_telling()) {
    std::fprintf(stderr, "%.*s\n", static_cast<int>(message.size()), message.data());
    std::fflush(nullptr);
    note_told();
  } else {
    // The rank that failed first speaks and ends the program; this one only makes sure of it.
    wait_until_told(3000);
    // mpirun ends this rank once the other's end is known to it. The mpirun of Open MPI 4.1 can
    // crash or stay when several end by themselves at once.
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
  // mpirun ends the other ranks when one exits like this. MPI_Abort adds a page of text, and the
  // mpirun of Open MPI 4.1 can crash over it; other launchers may need it.
  if (std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr) MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(const MpiOptions& options,
                                                    const std::vector<std::string>& hosts) {
  int running = 0;
  MPI_Initialized(&running);
  check(running, "make_mpi_communicator: MPI is not running; make an MpiSession first");
  return std::make_unique<MpiCommunicator>(duplicate(MPI_COMM_WORLD), make_node(options, hosts));
}

void report_failure(Communicator& world, int exit_code, std::string_view message) {
  if (auto* mpi = dynamic_cast<MpiCommunicator*>(&world)) mpi->report_failure(exit_code, message);
}

bool is_told(Communicator& world) {
  auto* mpi = dynamic_cast<MpiCommunicator*>(&world);
  return mpi && mpi->is_told();
}

bool claim_telling(Communicator& world) {
  auto* mpi = dynamic_cast<MpiCommunicator*>(&world);
  return !mpi || mpi->claim_telling();
}

void note_told(Communicator& world) {
  if (auto* mpi = dynamic_cast<MpiCommunicator*>(&world)) mpi->note_told();
}

void leave_mpi_world(Communicator& world) {
  if (auto* mpi = dynamic_cast<MpiCommunicator*>(&world)) mpi->leave();
}

}  // namespace adagate
