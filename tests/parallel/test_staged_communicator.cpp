// The communicator suite on memory of devices: what the suite sends goes to a guarded device first,
// and what arrives there comes back.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <numeric>

#include "core/device/copy.h"
#include "core/device/storage.h"
#include "parallel/staged_communicator.h"
#include "parallel/thread_communicator.h"
#include "tests/parallel/communicator_suite.h"
#include "tests/support/catch.h"
#include "tests/support/guarded_device.h"

using namespace adagate;
using namespace adagate::test;

namespace {

// Memory of the device with what the host's holds.
class OnDevice {
 public:
  OnDevice(const void* host, int64_t count, int64_t element_bytes, Device device)
      : bytes_(static_cast<size_t>(count * element_bytes)),
        storage_(Storage::allocate(bytes_, device)) {
    copy_between(data(), device, host, {}, bytes_);
  }
  void* data() const { return storage_->data(); }
  void bring_to(void* host) const { copy_between(host, {}, data(), storage_->device(), bytes_); }

 private:
  size_t bytes_;
  std::shared_ptr<Storage> storage_;
};

// Brings the result to the host once it is there.
class BroughtRequest final : public Request {
 public:
  BroughtRequest(std::unique_ptr<Request> request, OnDevice sent, OnDevice result, void* to)
      : sent_(std::move(sent)), result_(std::move(result)), to_(to), request_(std::move(request)) {}
  bool test() override {
    bool done = request_->test();
    if (done) bring();
    return done;
  }
  void wait() override {
    request_->wait();
    bring();
  }

 private:
  void bring() {
    if (to_) result_.bring_to(std::exchange(to_, nullptr));
  }
  OnDevice sent_, result_;
  void* to_;
  std::unique_ptr<Request> request_;
};

// Takes and gives memory of the host; all that moves between ranks lies on `device`.
class ThroughDevice final : public Communicator {
 public:
  ThroughDevice(std::shared_ptr<Communicator> staged, Device device)
      : staged_(std::move(staged)), form_(staged_->on(device, "the suite")), device_(device) {}

  std::string_view name() const override { return staged_->name(); }
  int rank() const override { return staged_->rank(); }
  int size() const override { return staged_->size(); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return std::make_unique<ThroughDevice>(staged_->split(color, key), device_);
  }

  void all_reduce(void* data, int64_t count, DType dtype, ReduceOp op) override {
    OnDevice there = put(data, count, dtype);
    form_.all_reduce(there.data(), count, dtype, op);
    there.bring_to(data);
  }
  std::unique_ptr<Request> all_reduce_async(void* data, int64_t count, DType dtype,
                                            ReduceOp op) override {
    OnDevice there = put(data, count, dtype);
    auto request = form_.all_reduce_async(there.data(), count, dtype, op);
    return std::make_unique<BroughtRequest>(std::move(request), there, there, data);
  }
  void all_gather(const void* send, void* recv, int64_t count, DType dtype) override {
    OnDevice sent = put(send, count, dtype), got = put(recv, count * size(), dtype);
    form_.all_gather(sent.data(), got.data(), count, dtype);
    got.bring_to(recv);
  }
  void reduce_scatter(const void* send, void* recv, int64_t count, DType dtype,
                      ReduceOp op) override {
    OnDevice sent = put(send, count * size(), dtype), got = put(recv, count, dtype);
    form_.reduce_scatter(sent.data(), got.data(), count, dtype, op);
    got.bring_to(recv);
  }
  std::unique_ptr<Request> all_gather_async(const void* send, void* recv,
                                            std::span<const int64_t> counts, DType dtype) override {
    OnDevice sent = put(send, own(counts), dtype), got = put(recv, total(counts), dtype);
    auto request = form_.all_gather_async(sent.data(), got.data(), counts, dtype);
    return std::make_unique<BroughtRequest>(std::move(request), sent, got, recv);
  }
  std::unique_ptr<Request> reduce_scatter_async(const void* send, void* recv,
                                                std::span<const int64_t> counts, DType dtype,
                                                ReduceOp op) override {
    OnDevice sent = put(send, total(counts), dtype), got = put(recv, own(counts), dtype);
    auto request = form_.reduce_scatter_async(sent.data(), got.data(), counts, dtype, op);
    return std::make_unique<BroughtRequest>(std::move(request), sent, got, recv);
  }
  void broadcast(void* data, int64_t count, DType dtype, int root) override {
    OnDevice there = put(data, count, dtype);
    form_.broadcast(there.data(), count, dtype, root);
    there.bring_to(data);
  }
  void all_to_all_v(const AllToAllV& exchange) override {
    OnDevice sent(exchange.send, total(exchange.send_rows), exchange.row_bytes, device_);
    OnDevice got(exchange.recv, total(exchange.recv_rows), exchange.row_bytes, device_);
    AllToAllV there = exchange;
    there.send = sent.data();
    there.recv = got.data();
    form_.all_to_all_v(there);
    got.bring_to(exchange.recv);
  }
  void barrier() override { form_.barrier(); }
  std::shared_ptr<void> allocate(size_t bytes) override { return staged_->allocate(bytes); }
  [[noreturn]] void abort(int exit_code, std::string_view message) override {
    staged_->abort(exit_code, message);
    std::abort();  // the compiler doesn't see that the line above ends the program
  }

 private:
  OnDevice put(const void* host, int64_t count, DType dtype) const {
    return {host, count, static_cast<int64_t>(size_of(dtype)), device_};
  }
  static int64_t total(std::span<const int64_t> counts) {
    return std::accumulate(counts.begin(), counts.end(), int64_t{0});
  }
  int64_t own(std::span<const int64_t> counts) const { return counts[static_cast<size_t>(rank())]; }

  std::shared_ptr<Communicator> staged_;
  Communicator& form_;
  Device device_;
};

}  // namespace

// Opening and closing the memory of guarded devices takes long where much of it is used: by default
// what shows each call once, with ADAGATE_TEST_FULL=1 all cases.
TEST_CASE("communicator suite: memory of devices, through the host") {
  const char* full = std::getenv("ADAGATE_TEST_FULL");
  constexpr std::array<std::string_view, 10> kShort = {"rank and size",
                                                       "NaN survives every reduction",
                                                       "memory of another device",
                                                       "all_to_all_v",
                                                       "split",
                                                       "mesh",
                                                       "allocated memory",
                                                       "asynchronous: nothing at all",
                                                       "dropped requests",
                                                       "gradient reducer"};
  for (int ranks : {2, 3})
    for (const suite::Case& c : suite::communicator_cases()) {
      if (!full && std::find(kShort.begin(), kShort.end(), c.name) == kShort.end()) continue;
      INFO(c.name << ", " << ranks << " ranks");
      CHECK_NOTHROW(run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
        Device device = guarded_device(world->rank());
        ThroughDevice through(stage_through_host(std::move(world)), device);
        c.run(through);
      }));
    }
}
