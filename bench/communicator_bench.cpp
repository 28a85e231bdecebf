#include "bench/communicator_bench.h"

#include <fmt/format.h>

#include "bench/timing.h"

namespace adagate {
namespace {

struct Collective {
  const char* name;
  bool
      own;  // on the communicator's memory, where gradients lie; routed rows lie in ordinary memory
  // Works on `count` floats of send and of recv.
  void (*run)(Communicator&, float* send, float* recv, int64_t count);
};

void exchange(Communicator& world, float* send, float* recv, int64_t count) {
  constexpr int64_t kRow = 256;  // floats
  std::vector<int64_t> rows(static_cast<size_t>(world.size()), count / kRow / world.size());
  world.all_to_all_v({.send = send,
                      .send_rows = rows,
                      .recv = recv,
                      .recv_rows = rows,
                      .row_bytes = kRow * static_cast<int64_t>(sizeof(float))});
}

const Collective kCollectives[] = {
    {"all-reduce", true,
     [](Communicator& c, float* send, float*, int64_t n) {
       c.all_reduce(send, n, DType::f32, ReduceOp::sum);
     }},
    {"reduce-scatter", true,
     [](Communicator& c, float* send, float* recv, int64_t n) {
       c.reduce_scatter(send, recv, n / c.size(), DType::f32, ReduceOp::sum);
     }},
    {"all-gather", true,
     [](Communicator& c, float* send, float* recv, int64_t n) {
       c.all_gather(send, recv, n / c.size(), DType::f32);
     }},
    {"broadcast", true,
     [](Communicator& c, float* send, float*, int64_t n) { c.broadcast(send, n, DType::f32, 0); }},
    {"all-to-all-v", false, exchange},
};

}  // namespace

BenchTable bench_communicator(Communicator& world, int64_t rounds) {
  BenchTable table(
      "communicator",
      fmt::format("Collectives of {} rank(s) ({}), per rank", world.size(), world.name()),
      {{"collective", "collective"},
       {"memory", "memory"},
       {"kib", "KiB", 0},
       {"us", "us", 1},
       {"best_us", "best", 1},
       {"gbytes", "GB/s", 2}});
  constexpr int64_t kSizes[] = {4 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20};
  constexpr int64_t kLargest = 64 << 20;
  auto own = world.allocate(kLargest);
  std::vector<float> ordinary(kLargest / sizeof(float), 1.0f), recv(kLargest / sizeof(float));
  for (const Collective& collective : kCollectives) {
    float* send = collective.own ? static_cast<float*>(own.get()) : ordinary.data();
    for (int64_t bytes : kSizes) {
      std::vector<double> runs;
      for (int64_t round = -2; round < rounds; ++round) {  // two to warm up
        world.barrier();
        double start = bench_now();
        collective.run(world, send, recv.data(), bytes / static_cast<int64_t>(sizeof(float)));
        if (round >= 0) runs.push_back(bench_now() - start);
      }
      BenchTime time = bench_time_of(std::move(runs));
      table.add({collective.name, collective.own ? "own" : "ordinary",
                 static_cast<double>(bytes) / 1024, time.median * 1e6, time.best * 1e6,
                 static_cast<double>(bytes) / time.median / 1e9});
    }
  }
  return table;
}

}  // namespace adagate
