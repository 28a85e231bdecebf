#include "parallel/staged_communicator.h"

#include <cstdlib>
#include <map>
#include <mutex>
#include <numeric>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/device/copy.h"
#include "core/device/storage.h"

namespace adagate {
namespace {

int64_t total(std::span<const int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

size_t bytes_of(int64_t count, DType dtype) {
  return static_cast<size_t>(count) * size_of(dtype);
}

// Runs on the host's copies; the result goes back once the collective is finished.
class StagedRequest final : public Request {
 public:
  // `run` takes the copies of what is sent and of what arrives, which stay where they are.
  template <class Run>
  StagedRequest(Device device, const void* send, size_t send_bytes, void* recv, size_t recv_bytes,
                Run&& run)
      : device_(device), recv_(recv), sent_(send_bytes), arrived_(recv_bytes) {
    // A copy from a device waits for what was launched before: the kernels that made it are done.
    copy_between(sent_.data(), {}, send, device, send_bytes);
    request_ = run(sent_.data(), arrived_.data());
  }
  // In place.
  template <class Run>
  StagedRequest(Device device, void* data, size_t bytes, Run&& run)
      : device_(device), recv_(data), arrived_(bytes) {
    copy_between(arrived_.data(), {}, data, device, bytes);
    request_ = run(arrived_.data());
  }

  bool test() override {
    if (!request_->test()) return false;
    copy_back();
    return true;
  }
  void wait() override {
    request_->wait();
    copy_back();
  }

 private:
  void copy_back() {
    if (!std::exchange(returned_, true))
      copy_between(recv_, device_, arrived_.data(), {}, arrived_.size());
  }

  Device device_;
  void* recv_;
  std::vector<std::byte> sent_, arrived_;
  std::unique_ptr<Request> request_;
  bool returned_ = false;
};

// The form for one device: buffers are that device's memory.
class DeviceForm final : public Communicator {
 public:
  DeviceForm(Communicator& host, Device device) : host_(host), device_(device) {}

  std::string_view name() const override { return host_.name(); }
  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  Communicator& on(Device device, std::string_view call) override {
    check(device == device_, "{}: a communicator for another device", call);
    return *this;
  }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return host_.split(color, key);
  }

  void all_reduce(void* data, int64_t count, DType dtype, ReduceOp op) override {
    all_reduce_async(data, count, dtype, op)->wait();
  }
  std::unique_ptr<Request> all_reduce_async(void* data, int64_t count, DType dtype,
                                            ReduceOp op) override {
    return std::make_unique<StagedRequest>(device_, data, bytes_of(count, dtype), [&](void* copy) {
      return host_.all_reduce_async(copy, count, dtype, op);
    });
  }
  void all_gather(const void* send, void* recv, int64_t count, DType dtype) override {
    all_gather_async(send, recv, equal_counts(count), dtype)->wait();
  }
  void reduce_scatter(const void* send, void* recv, int64_t count, DType dtype,
                      ReduceOp op) override {
    reduce_scatter_async(send, recv, equal_counts(count), dtype, op)->wait();
  }
  std::unique_ptr<Request> all_gather_async(const void* send, void* recv,
                                            std::span<const int64_t> counts, DType dtype) override {
    return std::make_unique<StagedRequest>(
        device_, send, bytes_of(own(counts), dtype), recv, bytes_of(total(counts), dtype),
        [&](void* sent, void* arrived) {
          return host_.all_gather_async(sent, arrived, counts, dtype);
        });
  }
  std::unique_ptr<Request> reduce_scatter_async(const void* send, void* recv,
                                                std::span<const int64_t> counts, DType dtype,
                                                ReduceOp op) override {
    return std::make_unique<StagedRequest>(
        device_, send, bytes_of(total(counts), dtype), recv, bytes_of(own(counts), dtype),
        [&](void* sent, void* arrived) {
          return host_.reduce_scatter_async(sent, arrived, counts, dtype, op);
        });
  }
  void broadcast(void* data, int64_t count, DType dtype, int root) override {
    std::vector<std::byte> copy(bytes_of(count, dtype));
    copy_between(copy.data(), {}, data, device_, copy.size());
    host_.broadcast(copy.data(), count, dtype, root);
    copy_between(data, device_, copy.data(), {}, copy.size());
  }
  void all_to_all_v(const AllToAllV& exchange) override {
    auto bytes = [&](std::span<const int64_t> rows) {
      return static_cast<size_t>(total(rows) * exchange.row_bytes);
    };
    std::vector<std::byte> sent(bytes(exchange.send_rows)), arrived(bytes(exchange.recv_rows));
    copy_between(sent.data(), {}, exchange.send, device_, sent.size());
    AllToAllV staged = exchange;
    staged.send = sent.data();
    staged.recv = arrived.data();
    host_.all_to_all_v(staged);
    copy_between(exchange.recv, device_, arrived.data(), {}, arrived.size());
  }
  void barrier() override { host_.barrier(); }

  std::shared_ptr<void> allocate(size_t bytes) override {
    // As communicators promise, zeros: written by a copy, since there may be no kernel of that
    // device here.
    auto storage = Storage::allocate(bytes, device_);
    std::vector<std::byte> zeros(bytes);
    copy_between(storage->data(), device_, zeros.data(), {}, bytes);
    return {storage, storage->data()};
  }
  [[noreturn]] void abort(int exit_code, std::string_view message) override {
    host_.abort(exit_code, message);
    std::abort();  // the compiler doesn't see that the line above ends the program
  }

 private:
  std::vector<int64_t> equal_counts(int64_t count) const {
    return std::vector<int64_t>(static_cast<size_t>(size()), count);
  }
  int64_t own(std::span<const int64_t> counts) const { return counts[static_cast<size_t>(rank())]; }

  Communicator& host_;
  Device device_;
};

class StagedCommunicator final : public Communicator {
 public:
  explicit StagedCommunicator(std::shared_ptr<Communicator> host) : host_(std::move(host)) {}

  std::string_view name() const override { return host_->name(); }
  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  Communicator& on(Device device, std::string_view) override {
    if (device.is_cpu()) return *this;
    std::lock_guard lock(mutex_);
    auto& form = forms_[{device.kind, device.index}];
    if (!form) form = std::make_unique<DeviceForm>(*host_, device);
    return *form;
  }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return stage_through_host(host_->split(color, key));
  }

  void all_reduce(void* data, int64_t count, DType dtype, ReduceOp op) override {
    host_->all_reduce(data, count, dtype, op);
  }
  std::unique_ptr<Request> all_reduce_async(void* data, int64_t count, DType dtype,
                                            ReduceOp op) override {
    return host_->all_reduce_async(data, count, dtype, op);
  }
  void all_gather(const void* send, void* recv, int64_t count, DType dtype) override {
    host_->all_gather(send, recv, count, dtype);
  }
  void reduce_scatter(const void* send, void* recv, int64_t count, DType dtype,
                      ReduceOp op) override {
    host_->reduce_scatter(send, recv, count, dtype, op);
  }
  std::unique_ptr<Request> all_gather_async(const void* send, void* recv,
                                            std::span<const int64_t> counts, DType dtype) override {
    return host_->all_gather_async(send, recv, counts, dtype);
  }
  std::unique_ptr<Request> reduce_scatter_async(const void* send, void* recv,
                                                std::span<const int64_t> counts, DType dtype,
                                                ReduceOp op) override {
    return host_->reduce_scatter_async(send, recv, counts, dtype, op);
  }
  void broadcast(void* data, int64_t count, DType dtype, int root) override {
    host_->broadcast(data, count, dtype, root);
  }
  void all_to_all_v(const AllToAllV& exchange) override { host_->all_to_all_v(exchange); }
  void barrier() override { host_->barrier(); }
  std::shared_ptr<void> allocate(size_t bytes) override { return host_->allocate(bytes); }
  [[noreturn]] void abort(int exit_code, std::string_view message) override {
    host_->abort(exit_code, message);
    std::abort();
  }

 private:
  std::shared_ptr<Communicator> host_;
  std::mutex mutex_;
  std::map<std::pair<DeviceKind, int>, std::unique_ptr<DeviceForm>> forms_;
};

}  // namespace

std::unique_ptr<Communicator> stage_through_host(std::shared_ptr<Communicator> host) {
  return std::make_unique<StagedCommunicator>(std::move(host));
}

}  // namespace adagate
