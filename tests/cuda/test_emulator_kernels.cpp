// What kernels may do is done right in every order, and what they may not ends the process with the
// place.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/ops/cuda/reduce.h"
#include "tests/cuda/emulator_fixture.h"

namespace adagate::test {
namespace {

using cuda::kAllLanes;

template <bool kBarrier>
__global__ void reverse_block(const float* x, float* y) {
  ADAGATE_DYNAMIC_SHARED(float, shared);
  shared[threadIdx.x] = x[threadIdx.x];
  if (kBarrier) __syncthreads();
  y[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

// Each round reads what its neighbour has written: without the second barrier some threads are a
// round ahead.
template <bool kSecondBarrier>
__global__ void rounds(int* y) {
  ADAGATE_SHARED(int, shared, 64);
  int sum = 0;
  for (int round = 0; round < 3; ++round) {
    shared[threadIdx.x] = round;
    __syncthreads();
    sum += shared[(threadIdx.x + 1) % 64];
    if (kSecondBarrier) __syncthreads();
  }
  y[threadIdx.x] = sum;
}

template <bool kSync>
__global__ void reverse_warp(int* y) {
  ADAGATE_SHARED(int, shared, 32);
  shared[threadIdx.x] = threadIdx.x;
  if (kSync)
    __syncwarp();
  else
    __shfl_xor_sync(kAllLanes, 1, 1);  // orders no memory
  y[threadIdx.x] = shared[31 - threadIdx.x];
}

__global__ void block_sums(const float* x, float* y, int cols) {
  ADAGATE_SHARED(float, shared, 32);
  float sum = 0;
  for (int c = threadIdx.x; c < cols; c += blockDim.x) sum += x[blockIdx.x * cols + c];
  sum = cuda::block_sum(sum, shared);
  if (threadIdx.x == 0) y[blockIdx.x] = sum;
}

__global__ void read_unwritten(float* y) {
  ADAGATE_SHARED(float, shared, 8);
  y[threadIdx.x] = shared[threadIdx.x];
}

__global__ void write_behind(int n) {
  ADAGATE_SHARED(int, shared, 10);
  shared[n] = 1;
}

__global__ void too_much_shared(float* y) {
  ADAGATE_SHARED(float, shared, 12289);
  y[0] = shared[0] = 1;
}

__global__ void barrier_of_half() {
  if (threadIdx.x < 16)
    __syncthreads();
  else
    __shfl_sync(kAllLanes, 1, 0);
}

__global__ void two_barriers() {
  if (threadIdx.x % 2 == 0)
    __syncthreads();
  else
    __syncthreads();
}

__global__ void lane_outside(float* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, threadIdx.x == 3 ? 20 : 0);
}

__global__ void not_in_own_mask() {
  __syncwarp(0xfu);
}

__global__ void write_at(float* y, int64_t i) {
  if (threadIdx.x == 1) y[i] = 1;
}

__global__ void read_four(const float* x, float* y, int from) {
  const float4 four = *reinterpret_cast<const float4*>(x + from);
  *y = four.x + four.y + four.z + four.w;
}

__global__ void use_much_stack(float* y, int depth) {
  volatile float local[4096];
  local[depth] = 1;
  if (depth > 0) use_much_stack(y, depth - 1);
  y[0] = local[depth];
}

__global__ void add_blocks(unsigned* sum) {
  if (threadIdx.x == 0) atomicAdd(sum, blockIdx.x);
}

__global__ void early_exit(int* y) {
  if (threadIdx.x >= 40) return;
  __syncthreads();
  y[threadIdx.x] = __syncthreads_count(threadIdx.x % 2);
}

struct Pair {
  const float* x;
  float* y;
};
__global__ void copy_one(Pair pair) {
  *pair.y = *pair.x;
}

// One row a lane: shuffles, votes and reductions of one warp.
constexpr int kResults = 12;
__global__ void warp_functions(int* y) {
  const int lane = threadIdx.x;
  int results[kResults] = {
      __shfl_sync(kAllLanes, lane * 10, 5),
      __shfl_sync(kAllLanes, lane * 10, lane + 1, 8),
      __shfl_xor_sync(kAllLanes, lane, 3),
      __shfl_down_sync(kAllLanes, lane, 4),
      __shfl_up_sync(kAllLanes, lane, 4),
      static_cast<int>(__ballot_sync(kAllLanes, lane % 3 == 0)),
      __any_sync(kAllLanes, lane == 7),
      __all_sync(kAllLanes, lane < 31),
      __reduce_add_sync(kAllLanes, lane),
      __reduce_max_sync(kAllLanes, -lane),
      static_cast<int>(__match_any_sync(kAllLanes, lane / 16)),
      static_cast<int>(__shfl_sync(kAllLanes, 1e300 * lane, 2) == 2e300),
  };
  for (int i = 0; i < kResults; ++i) y[lane * kResults + i] = results[i];
}

template <class LayoutB>
__global__ void product(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c) {
  using namespace nvcuda;
  wmma::fragment<wmma::matrix_a, 16, 16, 16, __nv_bfloat16, wmma::row_major> left;
  wmma::fragment<wmma::matrix_b, 16, 16, 16, __nv_bfloat16, LayoutB> right;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums;
  wmma::fill_fragment(sums, 0.5f);
  wmma::load_matrix_sync(left, a, 24);
  wmma::load_matrix_sync(right, b, 16);
  wmma::mma_sync(sums, left, right, sums);
  wmma::store_matrix_sync(c, sums, 16, wmma::mem_row_major);
}

std::vector<float> numbers(size_t n) {
  std::vector<float> values(n);
  std::iota(values.begin(), values.end(), 1.0f);
  return values;
}

// What a kernel with a missing barrier does: ThreadSanitizer reports it; otherwise some order gives
// something else than the right result.
template <class T, class F>
void check_race_shows(const std::vector<T>& right, F&& run) {
  if (kThreadSanitizer) {
    Ended ended = in_child([&] { run(); });
    CHECK(ended.output.find("data race") != std::string::npos);
    return;
  }
  bool shows = false;
  for (emulator::Order order : kOrders) {
    RunInOrder in(order);
    shows |= run() != right;
  }
  CHECK(shows);
}

}  // namespace

TEST_CASE("A barrier orders shared memory, and one that is missing shows") {
  EmulatedStream stream;
  const std::vector<float> x = numbers(64);
  const std::vector<float> reversed(x.rbegin(), x.rend());
  EmulatedArray<float> from(x);
  auto run = [&](auto kernel) {
    EmulatedArray<float> y(64);
    ADAGATE_LAUNCH(kernel, 1, 64, 64 * sizeof(float), stream, from.data(), y.data());
    return y.values();
  };
  for (emulator::Order order : kOrders) {
    RunInOrder in(order);
    CHECK(run(&reverse_block<true>) == reversed);
  }
  check_race_shows(reversed, [&] { return run(&reverse_block<false>); });
}

TEST_CASE("A barrier that is missing between the rounds of a loop shows") {
  EmulatedStream stream;
  auto run = [&](auto kernel) {
    EmulatedArray<int> y(64);
    ADAGATE_LAUNCH(kernel, 1, 64, 0, stream, y.data());
    return y.values();
  };
  const std::vector<int> right(64, 0 + 1 + 2);
  for (emulator::Order order : kOrders) {
    RunInOrder in(order);
    CHECK(run(&rounds<true>) == right);
  }
  check_race_shows(right, [&] { return run(&rounds<false>); });
}

TEST_CASE("A shuffle is no __syncwarp") {
  EmulatedStream stream;
  auto run = [&](auto kernel) {
    EmulatedArray<int> y(32);
    ADAGATE_LAUNCH(kernel, 1, 32, 0, stream, y.data());
    return y.values();
  };
  std::vector<int> right(32);
  for (int i = 0; i < 32; ++i) right[static_cast<size_t>(i)] = 31 - i;
  for (emulator::Order order : kOrders) {
    RunInOrder in(order);
    CHECK(run(&reverse_warp<true>) == right);
  }
  // The order of turns can't show it: all lanes have written when the shuffle is over.
  if (kThreadSanitizer) check_race_shows(right, [&] { return run(&reverse_warp<false>); });
}

TEST_CASE("Sums of blocks are the same bits in every order") {
  EmulatedStream stream;
  const int rows = 9, cols = 300;
  std::vector<float> x(rows * cols);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
  EmulatedArray<float> from(x), y(rows);
  std::vector<std::vector<float>> results;
  for (int os_threads : {1, 2})
    for (emulator::Order order : kOrders) {
      RunInOrder in(order);
      emulator::config().os_threads = os_threads;
      ADAGATE_LAUNCH(block_sums, rows, 128, 0, stream, from.data(), y.data(), cols);
      results.push_back(y.values());
      CHECK(results.back() == results.front());
    }
  for (size_t row = 0; row < rows; ++row) {
    double sum = std::accumulate(x.begin() + static_cast<int>(row) * cols,
                                 x.begin() + static_cast<int>(row + 1) * cols, 0.0);
    CHECK(results.front()[row] == Approx(sum).margin(1e-5));
  }
}

TEST_CASE("Shared memory is NaN until it is written") {
  EmulatedStream stream;
  EmulatedArray<float> y(std::vector<float>(8, 0.0f));
  ADAGATE_LAUNCH(read_unwritten, 1, 8, 0, stream, y.data());
  for (float value : y.values()) CHECK(std::isnan(value));
}

TEST_CASE("Warp functions") {
  EmulatedStream stream;
  EmulatedArray<int> y(32 * kResults);
  ADAGATE_LAUNCH(warp_functions, 1, 32, 0, stream, y.data());
  const std::vector<int> results = y.values();
  int thirds = 0;
  for (int lane = 0; lane < 32; lane += 3) thirds |= 1 << lane;
  for (int lane = 0; lane < 32; ++lane) {
    const int expected[kResults] = {50,
                                    (lane / 8 * 8 + (lane + 1) % 8) * 10,
                                    lane ^ 3,
                                    lane + 4 < 32 ? lane + 4 : lane,
                                    lane >= 4 ? lane - 4 : lane,
                                    thirds,
                                    1,
                                    0,
                                    31 * 32 / 2,
                                    0,
                                    static_cast<int>(lane < 16 ? 0x0000ffffu : 0xffff0000u),
                                    1};
    for (int i = 0; i < kResults; ++i)
      CHECK(results[static_cast<size_t>(lane * kResults + i)] == expected[i]);
  }
}

TEST_CASE("Threads that have ended are waited for no longer") {
  EmulatedStream stream;
  EmulatedArray<int> y(40);
  for (emulator::Order order : kOrders) {
    RunInOrder in(order);
    ADAGATE_LAUNCH(early_exit, 1, 64, 0, stream, y.data());
    CHECK(y.values() == std::vector<int>(40, 20));
  }
}

TEST_CASE("Atomics on integers") {
  EmulatedStream stream;
  EmulatedArray<unsigned> sum(std::vector<unsigned>{7});
  emulator::config().os_threads = 2;
  ADAGATE_LAUNCH(add_blocks, dim3(10, 3), 32, 0, stream, sum.data());
  CHECK(sum.values()[0] == 7 + 3 * 45);
  emulator::config().os_threads = 1;
}

TEST_CASE("wmma multiplies 16 x 16 matrices of bf16") {
  EmulatedStream stream;
  auto value = [](int i) { return static_cast<float>(i * 37 % 23 - 11) / 8; };
  std::vector<__nv_bfloat16> a(16 * 24), b(16 * 16);
  for (size_t i = 0; i < a.size(); ++i) a[i] = __float2bfloat16(value(static_cast<int>(i)));
  for (size_t i = 0; i < b.size(); ++i) b[i] = __float2bfloat16(value(static_cast<int>(i) + 5));
  EmulatedArray<__nv_bfloat16> on_a(a), on_b(b);
  EmulatedArray<float> c(256);
  auto check_product = [&](bool by_rows) {
    const std::vector<float> result = c.values();
    for (int row = 0; row < 16; ++row)
      for (int column = 0; column < 16; ++column) {
        float sum = 0.5f;
        for (int k = 0; k < 16; ++k)
          sum += value(row * 24 + k) * value((by_rows ? k * 16 + column : column * 16 + k) + 5);
        CHECK(result[static_cast<size_t>(row * 16 + column)] == Approx(sum));
      }
  };
  for (emulator::Order order : kOrders) {
    RunInOrder in(order);
    ADAGATE_LAUNCH(product<nvcuda::wmma::row_major>, 1, 32, 0, stream, on_a.data(), on_b.data(),
                   c.data());
    check_product(true);
    ADAGATE_LAUNCH(product<nvcuda::wmma::col_major>, 1, 32, 0, stream, on_a.data(), on_b.data(),
                   c.data());
    check_product(false);
  }
  check_stops(
      [&] {
        ADAGATE_LAUNCH(product<nvcuda::wmma::row_major>, 1, 32, 0, stream, on_a.data() + 8,
                       on_b.data(), c.data());
        stream.wait();
      },
      {"product", "multiple of 32 bytes"});
}

TEST_CASE("Kernels that have run are counted by their function's name") {
  EmulatedStream stream;
  EmulatedArray<int> y(64);
  auto before = emulator::kernels_run();
  ADAGATE_LAUNCH(rounds<true>, 1, 64, 0, stream, y.data());
  CHECK(emulator::kernels_run()["rounds"] == before["rounds"]);
  stream.wait();
  ADAGATE_LAUNCH((test::rounds<true>), 1, 64, 0, stream, y.data());
  stream.wait();
  CHECK(emulator::kernels_run()["rounds"] == before["rounds"] + 2);
}

TEST_CASE("Threads of a block that don't meet end the process") {
  RunInOrder in(emulator::Order::forward);  // so that the first to do wrong is known
  EmulatedStream stream;
  EmulatedArray<float> y(64);
  auto stops = [&](auto launch, const std::vector<std::string>& texts) {
    check_stops(
        [&] {
          launch();
          stream.wait();
        },
        texts);
  };
  stops([&] { ADAGATE_LAUNCH(barrier_of_half, 1, 32, 0, stream); },
        {"kernel barrier_of_half", "block (0,0,0)", "16 threads wait at a barrier",
         "test_emulator_kernels.cpp", "16 with lanes of their warp"});
  stops([&] { ADAGATE_LAUNCH(two_barriers, 1, 32, 0, stream); },
        {"kernel two_barriers", "wait at different barriers"});
  stops([&] { ADAGATE_LAUNCH(lane_outside, 2, 32, 0, stream, y.data()); },
        {"kernel lane_outside", "thread (3,0,0)", "reads lane 20"});
  stops([&] { ADAGATE_LAUNCH(not_in_own_mask, 1, 32, 0, stream); },
        {"thread (4,0,0)", "not in its own mask 0000000f"});
}

TEST_CASE("Launches that a GPU would refuse end the process") {
  EmulatedStream stream;
  EmulatedArray<float> y(64);
  check_stops([&] { ADAGATE_LAUNCH(write_at, 1, 2048, 0, stream, y.data(), 0); },
              {"no GPU takes the launch of write_at", "block (2048,1,1)"});
  check_stops([&] { ADAGATE_LAUNCH(write_at, dim3(1, 65536), 32, 0, stream, y.data(), 0); },
              {"grid (1,65536,1)"});
  check_stops([&] { ADAGATE_LAUNCH(write_at, 0, 32, 0, stream, y.data(), 0); }, {"grid (0,1,1)"});
  check_stops([&] { ADAGATE_LAUNCH(write_at, int64_t{1} << 33, 32, 0, stream, y.data(), 0); },
              {"grid (0,1,1)"});
  check_stops([&] { ADAGATE_LAUNCH(write_at, 1, 32, 50000, stream, y.data(), 0); },
              {"50000 bytes of shared memory of 49152"});
  check_stops(
      [&] {
        ADAGATE_LAUNCH(too_much_shared, 1, 32, 0, stream, y.data());
        stream.wait();
      },
      {"kernel too_much_shared", "49156 bytes of shared arrays"});
}

TEST_CASE("More shared memory for a kernel that is allowed it") {
  EmulatedStream stream;
  const std::vector<float> x = numbers(64);
  EmulatedArray<float> from(x), y(64);
  ADAGATE_ALLOW_SHARED(reverse_block<true>, 100000);
  ADAGATE_LAUNCH(reverse_block<true>, 1, 64, 100000, stream, from.data(), y.data());
  CHECK(y.values() == std::vector<float>(x.rbegin(), x.rend()));
}

TEST_CASE("Writing behind arrays ends the process") {
  RunInOrder in(emulator::Order::forward);  // so that the first to do wrong is known
  EmulatedStream stream;
  EmulatedArray<float> y(64);
  Ended behind_shared = in_child([&] {
    ADAGATE_LAUNCH(write_behind, 1, 1, 0, stream, 10);
    stream.wait();
  });
  INFO(behind_shared.output);
  CHECK(behind_shared.status != 0);
  const char* reason = emulator::kAsan ? "AddressSanitizer" : "behind a shared array of 40 bytes";
  CHECK(behind_shared.output.find(reason) != std::string::npos);
  if (emulator::kSanitized) return;
  check_stops(
      [&] {
        ADAGATE_LAUNCH(write_at, 3, 32, 0, stream, y.data(), 64);
        stream.wait();
      },
      {"kernel write_at, block (0,0,0), thread (1,0,0)", "in no allocation of its device"});
}

TEST_CASE("An access that is not aligned, and a stack that is too deep, end the process") {
  EmulatedStream stream;
  EmulatedArray<float> x(numbers(16)), y(1);
  ADAGATE_LAUNCH(read_four, 1, 1, 0, stream, x.data(), y.data(), 4);
  CHECK(y.values()[0] == 5 + 6 + 7 + 8);
  if (emulator::kSanitized) return;
  check_stops(
      [&] {
        ADAGATE_LAUNCH(read_four, 1, 1, 0, stream, x.data(), y.data(), 2);
        stream.wait();
      },
      {"kernel read_four", "not aligned to its type"});
  check_stops(
      [&] {
        ADAGATE_LAUNCH(use_much_stack, 1, 1, 0, stream, y.data(), 20);
        stream.wait();
      },
      {"kernel use_much_stack", "more stack than there is"});
}

TEST_CASE("Addresses of the host are no arguments of kernels") {
  EmulatedStream stream;
  EmulatedArray<float> y(1);
  float on_host = 1;
  check_stops([&] { ADAGATE_LAUNCH(write_at, 1, 32, 0, stream, &on_host, 0); },
              {"kernel write_at: argument 1", "memory of the host"});
  check_stops(
      [&] {
        ADAGATE_LAUNCH(copy_one, 1, 1, 0, stream, Pair{&on_host, y.data()});
      },
      {"kernel copy_one: argument 1", "memory of the host"});
}

}  // namespace adagate::test
