// Buckets, misuse, and sums that run before finish() is called.
#include <vector>

#include "core/base/error.h"
#include "parallel/gradient_reducer.h"
#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"

using namespace adagate;

TEST_CASE("gradient reducer: even buckets cover everything") {
  CHECK(even_buckets(10, 4) == std::vector<int64_t>{0, 4, 8, 10});
  CHECK(even_buckets(8, 4) == std::vector<int64_t>{0, 4, 8});
  CHECK(even_buckets(3, 4) == std::vector<int64_t>{0, 3});
  CHECK(even_buckets(0, 4) == std::vector<int64_t>{0, 0});
  CHECK_THROWS_AS(even_buckets(3, 0), Error);
}

TEST_CASE("gradient reducer: boundaries must cover the buffer") {
  auto self = make_self_communicator();
  Tensor data = Tensor::zeros({8}, DType::f32);
  for (std::vector<int64_t> bad : {std::vector<int64_t>{}, {0}, {0, 7}, {1, 8}, {0, 5, 4, 8}})
    CHECK_THROWS_AS(GradientReducer(*self, data, bad), Error);
  CHECK_NOTHROW(GradientReducer(*self, data, {0, 4, 4, 8}));
}

TEST_CASE("gradient reducer: an element cannot become ready twice or outside the buffer") {
  for (auto [first, last] : {std::pair<int64_t, int64_t>{3, 6}, {-1, 2}, {8, 11}, {5, 4}}) {
    auto twice = [first = first, last = last](std::shared_ptr<Communicator> world) {
      GradientReducer reducer(*world, Tensor::zeros({10}, DType::f32), {0, 5, 10});
      reducer.ready(0, 4);
      reducer.ready(first, last);
    };
    CHECK_THROWS_AS(run_ranks(2, twice), Error);
  }
}

TEST_CASE("gradient reducer: a bucket is summed while the rest is still being filled") {
  run_ranks(2, [](std::shared_ptr<Communicator> world) {
    Tensor gradient = Tensor::full({3000}, DType::f64, world->rank() + 1.0);
    const auto* data = gradient.data<double>();
    GradientReducer reducer(*world, gradient, {0, 1000, 2000, 3000});
    reducer.ready(0, 1000);  // its turn comes after those behind it
    reducer.ready(2500, 3000);
    reducer.ready(2000, 2500);
    world->barrier();           // all have posted the last bucket
    reducer.ready(1500, 2000);  // gives this rank the time to sum its part
    world->barrier();
    check(data[2999] == 3.0 && data[2000] == 3.0, "the last bucket is not summed: {}", data[2000]);
    check(data[0] == world->rank() + 1.0, "the first bucket is summed too early");
    reducer.finish();
    for (double x : gradient.to_doubles()) check(x == 3.0, "sum {}", x);
    // The next step starts from nothing.
    reducer.ready(0, 3000);
    reducer.finish();
    for (double x : gradient.to_doubles()) check(x == 6.0, "second sum {}", x);
  });
}

TEST_CASE("gradient reducer: ranks with buckets of another size get an error") {
  auto body = [](std::shared_ptr<Communicator> world) {
    GradientReducer reducer(*world, Tensor::zeros({100}, DType::f32),
                            even_buckets(100, 10 + world->rank()));
    reducer.finish();
  };
  CHECK_THROWS_AS(run_ranks(3, body), Error);
}
