// The program that the MPI tests start under mpirun: the communicator suite, faults on purpose, and
// the bandwidth of sums.
//   mpi_program suite | plain | throw | throw_plain | note_plain | kill | hang | hang_plain |
//     work | work_plain | leave | bench
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <signal.h>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include "core/base/error.h"
#include "core/base/heartbeat.h"
#include "parallel/mpi_calls.h"
#include "parallel/mpi_communicator.h"
#include "parallel/mpi_session.h"
#include "parallel/placement.h"
#include "parallel/watchdog.h"
#include "tests/parallel/communicator_suite.h"

using namespace adagate;

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void run_suite(Communicator& world, const char* name) {
  for (const auto& c : suite::communicator_cases()) {
    auto start = Clock::now();
    try {
      c.run(world);
    } catch (const Error& e) {
      fail("{}, {}: {}", name, c.name, e.what());
    }
    if (world.rank() == 0) std::printf("%-8s %-30s %.3f s\n", name, c.name, seconds_since(start));
  }
}

// More than one MPI message can carry: from rank 0 to the last one, marked where parts could begin.
void large_message(Communicator& world) {
  constexpr int64_t kGiB = int64_t{1} << 30, kBytes = 2 * kGiB + 12345;
  bool sends = world.rank() == 0, receives = world.rank() == world.size() - 1;
  std::vector<int64_t> out(static_cast<size_t>(world.size())), in(out.size());
  if (sends) out.back() = kBytes;
  if (receives) in.front() = kBytes;
  std::unique_ptr<uint8_t, void (*)(void*)> data(
      static_cast<uint8_t*>(std::calloc(sends || receives ? kBytes : 1, 1)), std::free);
  check(data != nullptr, "out of memory");
  const int64_t kMarked[] = {0,        1,         kGiB / 2, kGiB - 1, kGiB, kGiB + 1, 2 * kGiB - 1,
                             2 * kGiB, kBytes - 1};
  for (size_t i = 0; sends && i < std::size(kMarked); ++i)
    data.get()[kMarked[i]] = static_cast<uint8_t>(1 + i);
  world.all_to_all_v({data.get(), out, data.get(), in, 1});
  for (size_t i = 0; receives && i < std::size(kMarked); ++i)
    check(data.get()[kMarked[i]] == 1 + i, "a large message: byte {} is {}, not {}", kMarked[i],
          data.get()[kMarked[i]], 1 + i);
}

void suite_of(MpiSession& session, bool plain) {
  if (!plain) return run_suite(*session.world(), "shared");
  run_suite(*session.make_world({.shared_memory = true, .copy_from_peers = false}), "no copy");
  auto messages = session.make_world({.shared_memory = false, .copy_from_peers = false});
  run_suite(*messages, "messages");
  const char* full = std::getenv("ADAGATE_TEST_FULL");
  if (full && std::string(full) == "1" && messages->size() > 1) large_message(*messages);
}

// Rank 1 does `fault` after a while; the others work on until they notice.
void with_fault(Communicator& world, const std::function<void()>& fault) {
  std::vector<float> data(1 << 18);
  auto own = world.allocate(data.size() * sizeof(float));
  auto half = world.split(world.rank() / 2, 0);
  for (int step = 0;; ++step) {
    set_progress_note(fmt::format("step {}, sums", step));
    // Now and then a rank tells where it is; without this it might not have when the fault comes.
    if (step == 40) std::this_thread::sleep_for(std::chrono::milliseconds(300));
    if (step == 50 && world.rank() == 1) fault();
    world.all_reduce(data.data(), 1 << (step % 19), DType::f32, ReduceOp::max);
    // Parts of about 2^k elements, in turn in ordinary memory and in that of the communicator.
    std::vector<int64_t> counts;
    for (int r = 0; r < world.size(); ++r) counts.push_back((1 << (step % 16)) + r);
    float* parts = step % 2 ? data.data() : static_cast<float*>(own.get());
    float* part = parts + world.rank() * counts[0] + world.rank() * (world.rank() - 1) / 2;
    auto sum = world.reduce_scatter_async(parts, part, counts, DType::f32, ReduceOp::max);
    half->barrier();
    sum->wait();
    world.all_gather_async(part, parts, counts, DType::f32)->wait();
  }
}

// Rank 1 fails among ranks without shared memory: none but the launcher tells the others.
void throw_plain(Communicator& world) {
  try {
    with_fault(world, [] { throw Error("the disk is full", 7); });
  } catch (const Error& e) {
    world.abort(e.exit_code(), fmt::format("error on rank {}: {}", world.rank(), e.what()));
  }
}

// There, too, what a rank notes of its failure stands under its own number.
void note_plain(Communicator& world) {
  if (world.rank() != 1) std::this_thread::sleep_for(std::chrono::seconds(20));
  report_failure(world, 7, "the disk is full");
  try {
    world.barrier();
  } catch (const Error& e) {
    world.abort(e.exit_code(), e.what());
  }
}

// Rank 1 is at work for longer than the others would wait for one that hangs.
void work_long(Communicator& world) {
  set_collective_timeout(1);
  for (int i = 0; world.rank() == 1 && i < 15; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    beat();
  }
  world.barrier();
  if (world.rank() == 0) std::printf("waited for rank 1\n");
}

// Median seconds of `body` on the slowest rank.
double median_time(Communicator& world, int repeats, const std::function<void()>& body) {
  std::vector<double> times;
  body();
  for (int i = 0; i < repeats; ++i) {
    world.barrier();
    auto start = Clock::now();
    body();
    times.push_back(world.max(seconds_since(start)));
  }
  std::nth_element(times.begin(), times.begin() + repeats / 2, times.end());
  return times[static_cast<size_t>(repeats / 2)];
}

void bench(Communicator& world) {
  bool speaks = world.rank() == 0;
  auto say = [&](const char* what, int64_t bytes, double ours, double theirs) {
    if (speaks)
      std::printf("%-14s %9.1f KB  ours %9.1f us %6.2f GB/s   MPI %9.1f us %6.2f GB/s   %5.1fx\n",
                  what, static_cast<double>(bytes) / 1024, ours * 1e6,
                  static_cast<double>(bytes) / ours * 1e-9, theirs * 1e6,
                  static_cast<double>(bytes) / theirs * 1e-9, theirs / ours);
  };
  for (int64_t bytes : {8, 1024, 32 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20}) {
    int repeats = bytes <= (64 << 10) ? 301 : bytes <= (1 << 20) ? 51 : 11;
    int64_t count = std::max<int64_t>(bytes / 4, 1);
    auto memory = world.allocate(static_cast<size_t>(bytes));
    auto* shared = static_cast<float*>(memory.get());
    std::vector<float> plain(static_cast<size_t>(count)), result(plain.size());
    double through_shared = median_time(
        world, repeats, [&] { world.all_reduce(shared, count, DType::f32, ReduceOp::sum); });
    double through_plain = median_time(
        world, repeats, [&] { world.all_reduce(plain.data(), count, DType::f32, ReduceOp::sum); });
    double mpi = median_time(world, repeats, [&] {
      ADAGATE_MPI(MPI_Allreduce(plain.data(), result.data(), static_cast<int>(count), MPI_FLOAT,
                                MPI_SUM, MPI_COMM_WORLD));
    });
    say("sum allocated", bytes, through_shared, mpi);
    say("sum ordinary", bytes, through_plain, mpi);
  }
  auto n = static_cast<size_t>(world.size());
  for (int64_t bytes : {8 << 10, 64 << 10, 1 << 20, 16 << 20}) {
    int repeats = bytes <= (64 << 10) ? 301 : 21;
    std::vector<uint8_t> send(static_cast<size_t>(bytes)), recv(send.size());
    std::vector<int64_t> rows(n, bytes / 1024 / static_cast<int64_t>(n));
    std::vector<int> counts, starts;
    for (size_t r = 0; r < n; ++r) {
      counts.push_back(static_cast<int>(rows[r] * 1024));
      starts.push_back(static_cast<int>(r) * counts[r]);
    }
    double ours = median_time(world, repeats, [&] {
      world.all_to_all_v({send.data(), rows, recv.data(), rows, 1024});
    });
    double theirs = median_time(world, repeats, [&] {
      ADAGATE_MPI(MPI_Alltoallv(send.data(), counts.data(), starts.data(), MPI_BYTE, recv.data(),
                                counts.data(), starts.data(), MPI_BYTE, MPI_COMM_WORLD));
    });
    say("all_to_all_v", bytes, ours, theirs);
    auto memory = world.allocate(static_cast<size_t>(bytes));
    ours = median_time(world, repeats, [&] {
      world.all_to_all_v({memory.get(), rows, recv.data(), rows, 1024});
    });
    say("  allocated", bytes, ours, theirs);
  }
  double ours = median_time(world, 1001, [&] { world.barrier(); });
  double theirs = median_time(world, 1001, [&] { MPI_Barrier(MPI_COMM_WORLD); });
  if (speaks) std::printf("barrier: ours %.2f us, MPI %.2f us\n", ours * 1e6, theirs * 1e6);
}

void run(MpiSession& session, const std::string& mode) {
  Communicator& world = *session.world();
  if (mode == "suite" || mode == "plain") return suite_of(session, mode == "plain");
  if (mode == "bench") return bench(world);
  if (mode == "throw") with_fault(world, [] { throw Error("the disk is full", 7); });
  if (mode == "throw_plain" || mode == "note_plain") {
    auto plain = session.make_world({.shared_memory = false, .copy_from_peers = false});
    return mode == "throw_plain" ? throw_plain(*plain) : note_plain(*plain);
  }
  if (mode == "kill") with_fault(world, [] { kill(getpid(), SIGKILL); });
  auto hang = [](Communicator& ranks) {
    set_collective_timeout(2);
    with_fault(ranks, [] { std::this_thread::sleep_for(std::chrono::seconds(20)); });
  };
  if (mode == "hang") hang(world);
  if (mode == "work") return work_long(world);
  if (mode == "hang_plain" || mode == "work_plain") {
    auto plain = session.make_world({.shared_memory = false, .copy_from_peers = false});
    return mode == "hang_plain" ? hang(*plain) : work_long(*plain);
  }
  if (mode == "leave" && world.rank() != 1) world.barrier();
  if (mode == "leave") return;
  fail("unknown mode '{}'", mode);
}

}  // namespace

int main(int argc, char** argv) {
  configure_threads(0);
  MpiSession session;
  try {
    run(session, argc > 1 ? argv[1] : "suite");
  } catch (const Error& e) {
    session.world()->abort(e.exit_code(),
                           fmt::format("error on rank {}: {}", session.world()->rank(), e.what()));
  }
  return 0;
}
