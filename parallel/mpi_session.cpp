#include "parallel/mpi_session.h"

#include <cstdlib>
#include <exception>

#include "parallel/mpi_calls.h"
#include "parallel/mpi_communicator.h"
#include "parallel/placement.h"
#include "parallel/same_program.h"

namespace adagate {

namespace {

// The world of a session that an error has ended; never destroyed.
std::shared_ptr<Communicator>& failed_world() {
  static auto* world = new std::shared_ptr<Communicator>;
  return *world;
}

}  // namespace

void report_failure(int exit_code, std::string_view message) {
  if (auto world = failed_world()) report_failure(*world, exit_code, message);
}
bool claim_telling() {
  auto world = failed_world();
  return !world || claim_telling(*world);
}

MpiSession::MpiSession(std::string_view version) {
  if (!started_by_launcher()) {
    world_ = make_self_communicator();
    return;
  }
  int running = 0, level = 0;
  MPI_Initialized(&running);
  check(!running, "MpiSession: MPI is running already");
  ADAGATE_MPI(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &level));
  check(level >= MPI_THREAD_FUNNELED, "this MPI library does not allow a program with threads");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  check_same_program(MPI_COMM_WORLD, version);
  uses_mpi_ = true;
  world_ = make_mpi_communicator();
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
  return make_mpi_communicator(options);
}

}  // namespace adagate
