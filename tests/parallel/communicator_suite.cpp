#include "tests/parallel/communicator_suite.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "parallel/mesh.h"
#include "tests/parallel/suite_values.h"

namespace adagate::suite {
namespace {

constexpr int64_t kSizes[] = {0, 1, 31, 1000, 1 << 20};
constexpr int64_t kEagerBytes = 64 << 10;    // what shared memory takes in one go
constexpr int64_t kBeyondEager = 64 * 1099;  // elements, of any type

void rank_and_size(Communicator& c) {
  check(c.rank() >= 0 && c.rank() < c.size(), "rank {} of {}", c.rank(), c.size());
  check(c.sum<int64_t>(1) == c.size(), "the sum of ones is not the size");
  check(c.max<int32_t>(c.rank()) == c.size() - 1, "the largest rank is not size - 1");
  check(c.sum(0.5) == 0.5 * c.size(), "the sum of halves is not half the size");
}

void all_reduce(Communicator& c) {
  for_each_type([&]<class T>(T) {
    for (ReduceOp op : kOps)
      for (int64_t count : kSizes) {
        if (op != ReduceOp::sum) count = std::min(count, kBeyondEager);
        auto data = values_of<T>(c.rank(), count);
        c.all_reduce(data.data(), count, dtype_of<T>(), op);
        expect_sum(data.data(), count, op, c.size(), 0, "all_reduce");
      }
  });
}

// Sizes around the boundaries at which a communicator changes its way.
void all_reduce_boundaries(Communicator& c) {
  for (int64_t bytes : {65536, 131072, 1 << 20, 3 << 20})
    for (int64_t extra : {-4, 0, 4}) {
      int64_t count = (bytes + extra) / 4;
      auto data = values_of<float>(c.rank(), count, 3);
      c.all_reduce(data.data(), count, DType::f32, ReduceOp::sum);
      expect_sum(data.data(), count, ReduceOp::sum, c.size(), 3, "all_reduce at a boundary");
    }
}

// Memory that the host cannot read is refused before it is touched.
void host_memory(Communicator& c) {
  check(&c.on(Device{}, "a test") == &c, "host memory takes another communicator");
  std::string told;
  try {
    c.on({DeviceKind::cuda, 0}, "exchange_rows");
  } catch (const Error& e) {
    told = e.what();
  }
  check(told.find("exchange_rows: the communicator '" + std::string(c.name()) +
                  "' moves data of") == 0,
        "memory of a GPU: {}", told);
}

void nan_survives(Communicator& c) {
  for (ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min})
    for (int bad = 0; bad < c.size(); ++bad) {
      float value = c.rank() == bad ? std::nanf("") : 1.0f;
      c.all_reduce(&value, 1, DType::f32, op);
      check(std::isnan(value), "the NaN of rank {} is lost", bad);
    }
}

void all_gather(Communicator& c) {
  for_each_type([&]<class T>(T) {
    for (int64_t count : kSizes) {
      auto send = values_of<T>(c.rank(), count);
      std::vector<T> recv(static_cast<size_t>(count * c.size()));
      c.all_gather(send.data(), recv.data(), count, dtype_of<T>());
      for (int r = 0; r < c.size(); ++r)
        expect_same(recv.data() + r * count, values_of<T>(r, count).data(), count, "all_gather");
    }
  });
}

template <class T>
void scatter_sum(Communicator& c, int64_t count, ReduceOp op) {
  auto send = values_of<T>(c.rank(), count * c.size());
  std::vector<T> recv(static_cast<size_t>(count)), want(static_cast<size_t>(count));
  c.reduce_scatter(send.data(), recv.data(), count, dtype_of<T>(), op);
  for (int64_t i = 0; i < count; ++i)
    want[static_cast<size_t>(i)] = expected<T>(op, c.size(), c.rank() * count + i);
  expect_same(recv.data(), want.data(), count, "reduce_scatter");
}

void reduce_scatter(Communicator& c) {
  for_each_type([&]<class T>(T) {
    for (ReduceOp op : kOps)
      for (int64_t count : kSizes) {
        if (op != ReduceOp::sum) count = std::min(count, kBeyondEager);
        scatter_sum<T>(c, count, op);
      }
  });
}

void broadcast(Communicator& c) {
  for_each_type([&]<class T>(T) {
    for (int64_t count : kSizes)
      for (int root = 0; root < c.size(); ++root) {
        auto data = values_of<T>(c.rank(), count, root);
        c.broadcast(data.data(), count, dtype_of<T>(), root);
        expect_same(data.data(), values_of<T>(root, count, root).data(), count, "broadcast");
      }
  });
}

// rows(from, to) of row_bytes bytes each, every row filled with its own address.
template <class Rows>
void exchange(Communicator& c, int64_t row_bytes, const Rows& rows, const char* what) {
  int n = c.size(), me = c.rank();
  std::vector<int64_t> send_rows, recv_rows;
  std::vector<uint8_t> send, want;
  auto fill = [&](std::vector<uint8_t>& to, int source, int target) {
    for (int64_t row = 0; row < rows(source, target); ++row)
      for (int64_t b = 0; b < row_bytes; ++b)
        to.push_back(static_cast<uint8_t>(
            mix32(static_cast<uint32_t>(((source * 31 + target) * 1021 + row) * 61 + b))));
  };
  for (int r = 0; r < n; ++r) {
    send_rows.push_back(rows(me, r));
    recv_rows.push_back(rows(r, me));
    fill(send, me, r);
    fill(want, r, me);
  }
  std::vector<uint8_t> recv(want.size(), 0xAB);
  c.all_to_all_v({send.data(), send_rows, recv.data(), recv_rows, row_bytes});
  expect_same(recv.data(), want.data(), static_cast<int64_t>(want.size()), what);
}

void all_to_all_v(Communicator& c) {
  for (int64_t row_bytes : {1, 12, 1536}) {
    exchange(
        c, row_bytes, [](int, int) { return int64_t{7}; }, "even rows");
    exchange(
        c, row_bytes, [](int s, int t) { return int64_t{5 * s + 3 * t}; }, "uneven rows");
    exchange(
        c, row_bytes, [](int, int) { return int64_t{0}; }, "no rows");
    exchange(
        c, row_bytes, [](int, int t) { return int64_t{t == 0 ? 50 : 0}; }, "all to rank 0");
    exchange(
        c, row_bytes, [](int s, int) { return int64_t{s == 0 ? 50 : 0}; }, "all from rank 0");
    exchange(
        c, row_bytes, [](int s, int t) { return int64_t{s == t ? 9 : 0}; }, "to oneself");
    // Large on one rank, small on the others: both ways in one call.
    exchange(
        c, row_bytes, [](int s, int t) { return int64_t{s == 0 ? 300 + t : 1}; }, "lopsided");
    exchange(
        c, row_bytes, [](int s, int t) { return int64_t{200 + 31 * s + 17 * t}; }, "large");
  }
}

// As much as fits and one byte more; twice, for there are two buffers.
void eager_limit(Communicator& c) {
  int64_t n = c.size(), head = (n + 1) * static_cast<int64_t>(sizeof(int64_t));
  for (int64_t bytes : {kEagerBytes - head, kEagerBytes, kEagerBytes + 1})
    for (int again = 0; again < 2; ++again) {
      if (bytes != kEagerBytes)
        exchange(
            c, 1, [&](int, int t) { return bytes / n + (t == n - 1 ? bytes % n : 0); },
            "as many rows as fit");
      auto data = values_of<uint8_t>(c.rank(), bytes), got = data;
      c.all_reduce(data.data(), bytes, DType::u8, ReduceOp::max);
      expect_sum(data.data(), bytes, ReduceOp::max, c.size(), 0, "all_reduce that just fits");
      std::vector<uint8_t> all(static_cast<size_t>(bytes * n));
      c.all_gather(got.data(), all.data(), bytes, DType::u8);
      for (int r = 0; r < c.size(); ++r)
        expect_same(all.data() + r * bytes, values_of<uint8_t>(r, bytes).data(), bytes,
                    "all_gather that just fits");
      c.broadcast(got.data(), bytes, DType::u8, c.size() - 1);
      expect_same(got.data(), values_of<uint8_t>(c.size() - 1, bytes).data(), bytes,
                  "broadcast that just fits");
      scatter_sum<uint8_t>(c, bytes / n, ReduceOp::min);
    }
}

void split(Communicator& world) {
  int n = world.size(), me = world.rank();
  // Odd and even ranks, in reverse order.
  auto half = world.split(me % 2, -me);
  check(half->size() == (n + 1 - me % 2) / 2, "split: {} ranks in the half", half->size());
  check(half->sum<int64_t>(1) == half->size(), "split: the sum of ones is not the size");
  int64_t first = half->rank() == 0 ? me : -1;
  half->broadcast(&first, 1, DType::i64, 0);
  for (int64_t r = me; r < n; r += 2) first = std::max(first, r);
  int64_t largest = half->max<int64_t>(me);
  check(first == largest, "split: rank 0 is {}, the largest {}", first, largest);
  all_to_all_v(*half);
  all_reduce_boundaries(*half);
  world.barrier();
  // Groups of one, and a split of a split.
  auto alone = world.split(me, 0);
  check(alone->size() == 1 && alone->sum<int64_t>(me) == me, "split: not alone");
  auto again = half->split(0, half->rank());
  check(again->rank() == half->rank() && again->size() == half->size(), "split: other ranks");
  check(again->sum<int64_t>(me) == half->sum<int64_t>(me), "split: other members");
}

// Every value of the group lies on as many ranks as there are copies, in the same part on each.
void holders(const Mesh& mesh, const GroupRanks& group) {
  int copies = group.copies->size(), parts = group.parts->size();
  check(copies * parts == mesh.ranks(), "{} copies of {} parts", copies, parts);
  int copy = group.copies->rank(), part = group.parts->rank();
  check(group.parts->max<int32_t>(copy) == copy, "parts of several copies are together");
  check(group.copies->max<int32_t>(part) == part, "copies of several parts are together");
}

void mesh(Communicator& world) {
  for (int parts = 1; parts <= world.size(); ++parts) {
    if (world.size() % parts != 0) continue;
    std::shared_ptr<Communicator> all = world.split(0, world.rank());
    Mesh m = make_mesh(all, parts);
    check(m.expert_parallel() == parts && m.replicas() * parts == world.size(), "mesh sizes");
    check(m.world->rank() == m.replica->rank() * parts + m.expert->rank(), "mesh ranks");
    int64_t in_group = m.replica->sum<int64_t>(m.expert->rank());
    check(in_group == int64_t{m.expert->rank()} * m.replicas(), "mesh replicas");
    for (ParameterGroup g : kAllGroups) holders(m, m.group(g));
  }
}

template <class T>
void allocated_sums(Communicator& c, Communicator& owner) {
  for (int64_t count : {int64_t{1}, int64_t{1000}, int64_t{100037}}) {
    // 64 elements in: the sum starts inside the memory.
    auto memory = owner.allocate(static_cast<size_t>(count + 64) * sizeof(T));
    auto* data = static_cast<T*>(memory.get());
    for (int64_t i = 0; i < count + 64; ++i)
      check(static_cast<double>(data[i]) == 0, "allocate: element {} is not zero", i);
    auto values = values_of<T>(c.rank(), count, 5);
    std::copy(values.begin(), values.end(), data + 64);
    c.all_reduce(data + 64, count, dtype_of<T>(), ReduceOp::sum);
    expect_sum(data + 64, count, ReduceOp::sum, c.size(), 5, "all_reduce of allocated memory");
    // The way through ordinary memory gives the same bits.
    c.all_reduce(values.data(), count, dtype_of<T>(), ReduceOp::sum);
    expect_same(data + 64, values.data(), count, "allocated and ordinary memory");
  }
}

void allocated(Communicator& world) {
  allocated_sums<float>(world, world);
  allocated_sums<bfloat16>(world, world);
  allocated_sums<double>(world, world);
  allocated_sums<int64_t>(world, world);
  // Memory of the world, summed over a part of it, and the other collectives on it.
  auto half = world.split(world.rank() % 2, world.rank());
  allocated_sums<float>(*half, world);
  int64_t count = 50000;
  auto memory = world.allocate(static_cast<size_t>(count * (world.size() + 1)) * 4);
  auto* send = static_cast<float*>(memory.get());
  auto* recv = send + count;
  for (int64_t i = 0; i < count; ++i) send[i] = value_of<float>(world.rank(), i, 0);
  world.all_gather(send, recv, count, DType::f32);
  for (int r = 0; r < world.size(); ++r)
    expect_same(recv + r * count, values_of<float>(r, count).data(), count, "allocated all_gather");
  world.broadcast(send, count, DType::f32, world.size() - 1);
  expect_same(send, values_of<float>(world.size() - 1, count).data(), count, "allocated broadcast");
}

constexpr Case kCases[] = {
    {"rank and size", rank_and_size},
    {"all_reduce", all_reduce},
    {"all_reduce at boundaries", all_reduce_boundaries},
    {"NaN survives every reduction", nan_survives},
    {"memory of another device", host_memory},
    {"all_gather", all_gather},
    {"reduce_scatter", reduce_scatter},
    {"broadcast", broadcast},
    {"all_to_all_v", all_to_all_v},
    {"sizes at the eager limit", eager_limit},
    {"split", split},
    {"mesh", mesh},
    {"allocated memory", allocated},
};

}  // namespace

std::span<const Case> communicator_cases() {
  static const std::vector<Case> all = [] {
    std::vector<Case> cases(std::begin(kCases), std::end(kCases));
    cases.insert(cases.end(), asynchronous_cases().begin(), asynchronous_cases().end());
    return cases;
  }();
  return all;
}

}  // namespace adagate::suite
