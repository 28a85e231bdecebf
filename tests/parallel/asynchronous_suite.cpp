// Calls that go on beside others: sums, gathers and scatters, alone and many at a time.
#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "parallel/gradient_reducer.h"
#include "tests/parallel/communicator_suite.h"
#include "tests/parallel/suite_values.h"

namespace adagate::suite {
namespace {

// Elements that the peers reach as the communicator likes best, or that lie anywhere.
template <class T>
class Space {
 public:
  // Collective over `owner`, whatever `allocated` is on this rank.
  Space(Communicator& owner, int64_t count, bool allocated)
      : memory_(owner.allocate(static_cast<size_t>(count) * sizeof(T))),
        plain_(static_cast<size_t>(allocated ? 0 : count)),
        data_(allocated ? static_cast<T*>(memory_.get()) : plain_.data()) {}
  T* data() const { return data_; }

 private:
  std::shared_ptr<void> memory_;
  std::vector<T> plain_;
  T* data_;
};

// Sizes of the parts of `total` elements: about even, all on one rank, or none on some.
constexpr int kCuts = 3;
std::vector<int64_t> cut(int64_t total, int ranks, int how) {
  auto n = static_cast<size_t>(ranks);
  std::vector<int64_t> counts(n, 0);
  if (how % kCuts == 1) {
    counts[static_cast<size_t>(how) % n] = total;
    return counts;
  }
  int64_t left = total;
  for (size_t r = 0; r + 1 < n; ++r) {
    bool none = how % kCuts == 2 && r % 2 == 0;
    int64_t about = total / ranks + static_cast<int64_t>(r) - 1;
    left -= counts[r] = none ? 0 : std::clamp(about, int64_t{0}, left);
  }
  counts.back() = left;
  return counts;
}

enum class Kind { sum, gather, scatter };
constexpr Kind kKinds[] = {Kind::sum, Kind::gather, Kind::scatter};

// One call of any kind on `total` elements at `data`, which hold all parts; the smaller buffer is
// this rank's part in place, or lies elsewhere.
template <class T>
class Call {
 public:
  Call(Communicator& c, Kind kind, T* data, std::vector<int64_t> counts, ReduceOp op, int salt)
      : c_(c), kind_(kind), data_(data), counts_(std::move(counts)), op_(op), salt_(salt) {
    for (int r = 0; r < c.rank(); ++r) first_ += counts_[static_cast<size_t>(r)];
    total_ = std::accumulate(counts_.begin(), counts_.end(), int64_t{0});
    own_ = counts_[static_cast<size_t>(c.rank())];
  }

  void fill() {
    auto values = values_of<T>(c_.rank(), total_, salt_);
    std::copy(values.begin(), values.end(), data_);
  }
  // part: null for in place.
  void start(T* part = nullptr) {
    DType dtype = dtype_of<T>();
    part_ = part ? part : data_ + first_;
    if (kind_ == Kind::sum) request_ = c_.all_reduce_async(data_, total_, dtype, op_);
    if (kind_ == Kind::scatter)
      request_ = c_.reduce_scatter_async(data_, part_, counts_, dtype, op_);
    if (kind_ != Kind::gather) return;
    if (part) {
      std::copy(data_ + first_, data_ + first_ + own_, part);
      std::fill(data_ + first_, data_ + first_ + own_, T{});
    }
    request_ = c_.all_gather_async(part_, data_, counts_, dtype);
  }
  Request& request() { return *request_; }

  void expect() const {
    if (kind_ == Kind::sum) return expect_sum(data_, total_, op_, c_.size(), salt_, "async sum");
    std::vector<T> want = values_of<T>(c_.rank(), total_, salt_);
    if (kind_ == Kind::gather) {
      int64_t at = 0;
      for (int r = 0; r < c_.size(); ++r)
        for (int64_t end = at + counts_[static_cast<size_t>(r)]; at < end; ++at)
          want[static_cast<size_t>(at)] = value_of<T>(r, at, salt_);
    } else {
      std::vector<T> sums;
      for (int64_t i = first_; i < first_ + own_; ++i)
        sums.push_back(expected<T>(op_, c_.size(), i, salt_));
      expect_same(part_, sums.data(), own_, "all parts' sum");
      if (part_ == data_ + first_) std::copy(sums.begin(), sums.end(), want.begin() + first_);
    }
    // The rest is as it was.
    expect_same(data_, want.data(), total_, kind_ == Kind::gather ? "all parts" : "what was sent");
  }

 private:
  Communicator& c_;
  Kind kind_;
  T* data_;
  T* part_ = nullptr;
  std::vector<int64_t> counts_;
  ReduceOp op_;
  int salt_;
  int64_t first_ = 0, own_ = 0, total_ = 0;
  std::unique_ptr<Request> request_;
};

template <class T>
void one_call(Communicator& c, Communicator& owner, int64_t total, ReduceOp op, bool allocated) {
  Space<T> space(owner, total, allocated), elsewhere(owner, total, allocated);
  for (Kind kind : kKinds)
    for (int how = 0; how < kCuts; ++how)
      for (bool in_place : {true, false}) {
        if (kind == Kind::gather && op != ReduceOp::sum) continue;
        Call<T> call(c, kind, space.data(), cut(total, c.size(), how), op, how);
        call.fill();
        call.start(in_place ? nullptr : elsewhere.data());
        call.request().wait();
        call.expect();
      }
}

void every_type(Communicator& c) {
  for_each_type([&]<class T>(T) {
    for (ReduceOp op : kOps)
      for (int64_t total : {0, 7, 1000, 20011})
        for (bool allocated : {true, false})
          if (op == ReduceOp::sum || total == 1000) one_call<T>(c, c, total, op, allocated);
  });
}

// A boundary of the pieces in which parts travel, and a part of many pieces.
void long_parts(Communicator& c) {
  for (int64_t total : {(64 << 10) / 4 * c.size(), (3 << 19) / 4 + 1})
    for (bool allocated : {true, false}) one_call<float>(c, c, total, ReduceOp::sum, allocated);
}

void in_groups(Communicator& world) {
  auto half = world.split(world.rank() % 2, -world.rank());
  auto alone = world.split(world.rank(), 0);
  for (bool allocated : {true, false}) {
    one_call<float>(*half, world, 50001, ReduceOp::sum, allocated);
    one_call<bfloat16>(*half, *half, 5001, ReduceOp::sum, allocated);
    one_call<float>(*alone, world, 50001, ReduceOp::sum, allocated);
  }
}

// What one rank holds where its peers reach it, another holds anywhere: all must go the same way.
void memory_of_both_kinds(Communicator& c) {
  for (int other = 0; other < c.size(); ++other) {
    one_call<float>(c, c, 30011, ReduceOp::sum, c.rank() == other);
    one_call<float>(c, c, 30011, ReduceOp::sum, c.rank() != other);
  }
}

void nothing_at_all(Communicator& c) {
  std::vector<int64_t> none(static_cast<size_t>(c.size()), 0), one = none;
  c.all_gather_async(nullptr, nullptr, none, DType::f32)->wait();
  c.reduce_scatter_async(nullptr, nullptr, none, DType::f32, ReduceOp::sum)->wait();
  // Only the last rank holds something, and only it has an address for it.
  one.back() = 1;
  bool last = c.rank() == c.size() - 1;
  float own = 7, got = 0;
  c.all_gather_async(last ? &own : nullptr, &got, one, DType::f32)->wait();
  check(got == 7, "gathered {}", got);
  c.reduce_scatter_async(&got, last ? &own : nullptr, one, DType::f32, ReduceOp::sum)->wait();
  check(own == static_cast<float>(last ? 7 * c.size() : 7), "scattered {}", own);
}

// Sharded sums are whole sums, bit for bit.
void scatter_and_gather(Communicator& c) {
  constexpr int64_t kTotal = 100003;
  for_each_type([&]<class T>(T) {
    for (bool allocated : {true, false}) {
      Space<T> sharded(c, kTotal, allocated), whole(c, kTotal, allocated);
      auto values = values_of<T>(c.rank(), kTotal, 9);
      std::copy(values.begin(), values.end(), sharded.data());
      std::copy(values.begin(), values.end(), whole.data());
      std::vector<int64_t> counts = cut(kTotal, c.size(), 0);
      T* part =
          sharded.data() + std::accumulate(counts.begin(), counts.begin() + c.rank(), int64_t{0});
      DType dtype = dtype_of<T>();
      c.reduce_scatter_async(sharded.data(), part, counts, dtype, ReduceOp::sum)->wait();
      c.all_gather_async(part, sharded.data(), counts, dtype)->wait();
      c.all_reduce(whole.data(), kTotal, dtype, ReduceOp::sum);
      expect_same(sharded.data(), whole.data(), kTotal, "reduce_scatter and all_gather");
    }
  });
}

// Calls of all kinds under way while other collectives run, on memory of both kinds.
void many_at_a_time(Communicator& world) {
  constexpr int kCalls = 75;  // more than any queue inside is deep
  auto half = world.split(world.rank() % 2, 0);
  std::vector<int64_t> totals;
  for (int p = 0; p < kCalls; ++p) totals.push_back(p % 7 == 0 ? p : 250 * p);
  int64_t all = std::accumulate(totals.begin(), totals.end(), int64_t{0});
  for (bool allocated : {true, false}) {
    Space<float> space(world, all, allocated);
    std::vector<Call<float>> calls;
    int64_t offset = 0;
    for (int p = 0; p < kCalls; ++p) {
      int64_t total = totals[static_cast<size_t>(p)];
      calls.emplace_back(world, kKinds[p % 3], space.data() + offset,
                         cut(total, world.size(), p / 3), ReduceOp::sum, p);
      offset += total;
      calls.back().fill();
      calls.back().start();
      if (p % 5 == world.rank() % 5) calls[static_cast<size_t>(p / 2)].request().test();
      if (p % 10 == 3) check(world.sum<int64_t>(p) == int64_t{p} * world.size(), "sum between");
      if (p % 10 == 7) check(half->sum<int64_t>(p) == int64_t{p} * half->size(), "sum in the half");
    }
    // The ranks ask in different orders.
    for (int i = 0; i < kCalls; ++i) {
      Request& request =
          calls[static_cast<size_t>(world.rank() % 2 ? kCalls - 1 - i : i)].request();
      request.wait();
      check(request.test(), "a finished request is not finished");
      request.wait();
    }
    for (const Call<float>& call : calls) call.expect();
  }
}

// test() alone must bring a call to its end.
void polling(Communicator& world) {
  for (bool allocated : {true, false}) {
    Space<float> space(world, 1 << 20, allocated);
    for (Kind kind : kKinds) {
      Call<float> call(world, kind, space.data(), cut(1 << 20, world.size(), 0), ReduceOp::sum, 0);
      call.fill();
      call.start();
      while (!call.request().test()) {
      }
      call.expect();
    }
  }
}

// A request that nobody waits for is finished before its buffers may go.
void dropped(Communicator& world) {
  for (bool allocated : {true, false})
    for (Kind kind : kKinds) {
      Space<float> space(world, 40000, allocated);
      {
        Call<float> call(world, kind, space.data(), cut(40000, world.size(), 0), ReduceOp::sum, 1);
        call.fill();
        call.start();
      }
      std::fill(space.data(), space.data() + 40000, -1.0f);
      world.barrier();
      check(std::all_of(space.data(), space.data() + 40000, [](float x) { return x == -1.0f; }),
            "a call of kind {} went on after its request", static_cast<int>(kind));
    }
}

void reducer(Communicator& world) {
  constexpr int64_t kTotal = 200000;
  Tensor flat = allocate_gradient(world, kTotal, DType::f32);
  auto* data = flat.data<float>();
  GradientReducer reducer(world, flat, even_buckets(kTotal, 47001));
  for (int step = 0; step < 4; ++step) {
    auto values = values_of<float>(world.rank(), kTotal, step);
    std::copy(values.begin(), values.end(), data);
    // Pieces become final in an order of their own on each rank and step.
    std::vector<std::pair<int64_t, int64_t>> pieces;
    for (int64_t first = 0; first < kTotal; first += 9973)
      pieces.emplace_back(first, std::min(kTotal, first + 9973));
    Rng rng(7, RngStream::test, static_cast<uint64_t>(step), static_cast<uint64_t>(world.rank()));
    for (size_t i = pieces.size(); i > 1; --i) std::swap(pieces[i - 1], pieces[rng.at(i)[0] % i]);
    // On some steps the last pieces are left to finish().
    size_t told = step % 2 ? pieces.size() : pieces.size() / 2;
    for (size_t i = 0; i < told; ++i) reducer.ready(pieces[i].first, pieces[i].second);
    reducer.finish();
    expect_sum(data, kTotal, ReduceOp::sum, world.size(), step, "gradient reducer");
  }
}

constexpr Case kCases[] = {
    {"asynchronous: every type", every_type},
    {"asynchronous: long parts", long_parts},
    {"asynchronous: in groups", in_groups},
    {"asynchronous: memory of both kinds", memory_of_both_kinds},
    {"asynchronous: nothing at all", nothing_at_all},
    {"scatter and gather are a sum", scatter_and_gather},
    {"many at a time", many_at_a_time},
    {"polling", polling},
    {"dropped requests", dropped},
    {"gradient reducer", reducer},
};

}  // namespace

std::span<const Case> asynchronous_cases() {
  return kCases;
}

}  // namespace adagate::suite
