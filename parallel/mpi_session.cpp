#include "parallel/mpi_session.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "parallel/hello.h"
#include "parallel/mpi_calls.h"
#include "parallel/mpi_communicator.h"
#include "parallel/placement.h"
#include "parallel/rank_names.h"
#include "parallel/same_program.h"
#include "parallel/start_guard.h"

namespace adagate {

namespace {

// The world of a session that an error has ended; never destroyed.
std::shared_ptr<Communicator>& failed_world() {
  static auto* world = new std::shared_ptr<Communicator>;
  return *world;
}

// Set where the start failed and another rank tells.
bool g_told_at_start = false;

void give_up(const std::string& message) {
  std::fprintf(stderr, "%s\n", message.c_str());
  std::_Exit(1);
}

bool g_start_tried = false;

// Runs MPI_Init and the first exchange.
std::vector<Hello> start_mpi(StartGuard& guard, double timeout, Hello own) {
  g_start_tried = true;
  int running = 0, level = 0;
  MPI_Initialized(&running);
  check(!running, "MpiSession: MPI is running already");
  guard.begin("MPI_Init");
  ADAGATE_MPI(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &level));
  check(level >= MPI_THREAD_FUNNELED, "this MPI library does not allow a program with threads");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  guard.pause();
  own.host = host_name();
  return exchange_hellos(own, timeout, g_told_at_start);
}

// The lowest rank that has failed before; -1: none.
int failed_rank(const std::vector<Hello>& hellos) {
  for (size_t r = 0; r < hellos.size(); ++r)
    if (!hellos[r].error.empty()) return static_cast<int>(r);
  return -1;
}

// Throws Error on all ranks when they run different programs; rank 0 tells.
void compare_programs(const std::string& version) {
  int rank = 0;
  ADAGATE_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &rank));
  try {
    check_same_program(MPI_COMM_WORLD, version);
  } catch (const Error&) {
    g_told_at_start = rank > 0;
    throw;
  }
}

}  // namespace

void report_failure(int exit_code, std::string_view message) {
  if (auto world = failed_world()) report_failure(*world, exit_code, message);
}
bool is_told() {
  auto world = failed_world();
  return g_told_at_start || (world && is_told(*world));
}
bool claim_telling() {
  auto world = failed_world();
  return !world || claim_telling(*world);
}
void note_told() {
  if (auto world = failed_world()) note_told(*world);
}

bool start_was_tried() {
  return g_start_tried;
}

bool tell_failure_at_start(const StartOptions& options, int exit_code, const std::string& message) {
  StartGuard guard(options.timeout, options.give_up ? options.give_up : give_up);
  int rank = 0;
  auto hellos = start_mpi(guard, options.timeout, {"", exit_code, message});
  ADAGATE_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &rank));
  return failed_rank(hellos) == rank;
}

MpiSession::MpiSession(const StartOptions& options) {
  if (!started_by_launcher()) {
    world_ = make_self_communicator();
    return;
  }
  StartGuard guard(options.timeout, options.give_up ? options.give_up : give_up);
  auto hellos = start_mpi(guard, options.timeout, {});
  if (int rank = failed_rank(hellos); rank >= 0) {
    const Hello& failed = hellos[static_cast<size_t>(rank)];
    g_told_at_start = true;
    throw Error(fmt::format("rank {} (host {}) failed: {}", rank, failed.host, failed.error),
                failed.exit_code);
  }
  for (const Hello& hello : hellos) hosts_.push_back(hello.host);
  if (std::count(hosts_.begin(), hosts_.end(), hosts_.front()) ==
      static_cast<std::ptrdiff_t>(hosts_.size()))
    hosts_.clear();
  guard.begin("MPI_Allgather");
  compare_programs(options.version);
  guard.begin("MPI_Comm_split_type");
  uses_mpi_ = true;
  world_ = make_mpi_communicator({}, hosts_);
}

MpiSession::~MpiSession() {
  if (!uses_mpi_) return;
  // An error on its way out must not wait for ranks that wait for this one: MPI stays as it is, and
  // whoever catches the error tells it and ends the process.
  if (std::uncaught_exceptions() > 0) {
    failed_world() = std::move(world_);
    return;
  }
  try {
    world_->barrier();
  } catch (const Error& e) {
    world_->abort(e.exit_code(), e.what());
  }
  leave_mpi_world(*world_);
  world_.reset();
  MPI_Finalize();
}

std::unique_ptr<Communicator> MpiSession::make_world(const MpiOptions& options) {
  if (!uses_mpi_) return make_self_communicator();
  return make_mpi_communicator(options, hosts_);
}

}  // namespace adagate
