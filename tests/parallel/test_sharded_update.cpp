// An optimizer whose ranks own parts: scattered sums of gradients, an update of the own elements,
// gathered values.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "core/base/rng.h"
#include "core/optim/adamw.h"
#include "parallel/mesh.h"
#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"

using namespace adagate;

namespace {

struct Toy : Module {
  Parameter matrix{{.shape = {61, 37}, .init = Init::normal(1.0)}};
  Parameter gain{{.shape = {37}, .init = Init::ones(), .decay = false}};
  Parameter experts{
      {.shape = {3, 700}, .init = Init::normal(0.5), .group = ParameterGroup::expert}};
  Toy() {
    add("matrix", matrix);
    add("gain", gain);
    add("experts", experts);
  }
};

// Each group's buffer is cut into buckets, each bucket into one part per rank, neither where a
// parameter ends.
struct Bucket {
  int64_t begin = 0;
  std::vector<int64_t> counts;  // per rank

  int64_t own_begin(int rank) const {
    int64_t at = begin;
    for (int r = 0; r < rank; ++r) at += counts[static_cast<size_t>(r)];
    return at;
  }
};

std::vector<Bucket> buckets_of(int64_t elements, int ranks) {
  constexpr int64_t kBucket = 777;
  std::vector<Bucket> buckets;
  for (int64_t begin = 0; begin < elements; begin += kBucket) {
    int64_t left = std::min(kBucket, elements - begin);
    Bucket bucket{begin, {}};
    for (int r = 0; r + 1 < ranks; ++r) {
      bucket.counts.push_back(std::min(left, kBucket / ranks + 13 * r));
      left -= bucket.counts.back();
    }
    bucket.counts.push_back(left);
    buckets.push_back(std::move(bucket));
  }
  return buckets;
}

float gradient(int rank, int64_t step, ParameterGroup group, int64_t i) {
  Rng rng(5, RngStream::test, static_cast<uint64_t>(step * 10 + rank),
          static_cast<uint64_t>(group));
  return static_cast<float>(rng.normal(static_cast<uint64_t>(i)));
}

// The whole optimizer: the gradients of all ranks summed in their order.
void whole_step(ParameterStore& store, AdamW& adamw, int ranks, int64_t step) {
  for (ParameterGroup g : kAllGroups) {
    auto* sums = store.group(g).grad.data<float>();
    for (int64_t i = 0; i < store.group(g).size(); ++i) {
      sums[i] = gradient(0, step, g, i);
      for (int r = 1; r < ranks; ++r) sums[i] += gradient(r, step, g, i);
    }
  }
  adamw.step(0.02, 0.9);
}

class ShardedRank {
 public:
  ShardedRank(const Mesh& mesh, DType compute) : mesh_(mesh), store_(toy_, {.compute = compute}) {
    store_.initialize(3);
    OwnedRanges owned;
    for (ParameterGroup g : kAllGroups) {
      Communicator& ranks = *mesh_.group(g).copies;
      buckets_[g] = buckets_of(store_.group(g).size(), ranks.size());
      for (const Bucket& b : buckets_[g])
        owned[g].push_back({b.own_begin(ranks.rank()), b.own_begin(ranks.rank() + 1)});
    }
    adamw_ = std::make_unique<AdamW>(store_, OptimizerConfig{}, owned);
  }

  void step(int64_t step) {
    for (ParameterGroup g : kAllGroups) {
      auto* own = store_.group(g).grad.data<float>();
      for (int64_t i = 0; i < store_.group(g).size(); ++i)
        own[i] = gradient(mesh_.world->rank(), step, g, i);
    }
    exchange(&FlatGroup::grad, [](Communicator& ranks, float* all, float* own, const auto& counts) {
      return ranks.reduce_scatter_async(all, own, counts, DType::f32, ReduceOp::sum);
    });
    adamw_->step(0.02, 0.9);
    exchange(&FlatGroup::master,
             [](Communicator& ranks, float* all, float* own, const auto& counts) {
               return ranks.all_gather_async(own, all, counts, DType::f32);
             });
    store_.refresh_compute();
  }
  ParameterStore& store() { return store_; }

 private:
  // start(ranks, bucket, own part of it, counts) for all buckets at a time.
  template <class Start>
  void exchange(Tensor FlatGroup::*which, const Start& start) {
    std::vector<std::unique_ptr<Request>> requests;
    for (ParameterGroup g : kAllGroups) {
      Communicator& ranks = *mesh_.group(g).copies;
      auto* data = (store_.group(g).*which).data<float>();
      for (const Bucket& b : buckets_[g])
        requests.push_back(
            start(ranks, data + b.begin, data + b.own_begin(ranks.rank()), b.counts));
    }
    for (auto& request : requests) request->wait();
  }

  Mesh mesh_;
  Toy toy_;
  ParameterStore store_;
  PerGroup<std::vector<Bucket>> buckets_;
  std::unique_ptr<AdamW> adamw_;
};

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.numel() == b.numel() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

}  // namespace

TEST_CASE("sharded update: ranks that own parts train as one that owns all, bit for bit") {
  for (DType compute : {DType::f32, DType::bf16})
    for (int ranks : {1, 2, 3}) {
      CAPTURE(ranks);
      run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
        ShardedRank sharded(make_mesh(world, 1), compute);
        Toy toy;
        ParameterStore store(toy, {.compute = compute});
        store.initialize(3);
        AdamW adamw(store, {});
        for (int64_t step = 0; step < 3; ++step) {
          sharded.step(step);
          whole_step(store, adamw, ranks, step);
          for (ParameterGroup g : kAllGroups) {
            const FlatGroup &own = sharded.store().group(g), &whole = store.group(g);
            check(same_bits(own.master, whole.master), "other {} values at step {}", name_of(g),
                  step);
            check(!whole.compute || same_bits(own.compute, whole.compute),
                  "other {} copies at step {}", name_of(g), step);
          }
        }
      });
    }
}
