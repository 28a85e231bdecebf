// Ranks that exchange data. A Communicator is passed, never looked up; a group of one makes every
// collective the identity, so serial code has no `if (distributed)`.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "core/base/dtype.h"
#include "core/base/error.h"
#include "core/device/device.h"

namespace adagate {

enum class ReduceOp : uint8_t { sum, max, min };

// Rows that travel from every rank to every rank. Rows of `send` are contiguous per destination, in
// rank order; rows of `recv` arrive contiguous per source, in rank order. Counts are rows; any may
// be zero, and a rank whose counts are all zero still joins the call.
struct AllToAllV {
  const void* send = nullptr;
  std::span<const int64_t> send_rows;  // [size]
  void* recv = nullptr;
  std::span<const int64_t> recv_rows;  // [size]
  int64_t row_bytes = 0;
};

// A collective under way. The buffers must stay untouched until test() is true or wait() returns.
class Request {
 public:
  virtual ~Request() = default;
  virtual bool test() = 0;  // makes progress; true once finished; throws as wait() does
  virtual void wait() = 0;  // throws Error if a rank has failed
};

// Collectives are issued in the same order on all ranks of the group. Buffers are memory that the
// host reads: a tensor's go through on(its device). Sums are taken in rank order, so all ranks get
// the same bits, and the same call on the same data gives the same bits again. Throws Error when
// another rank has failed.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual std::string_view name() const = 0;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // The form of this communicator whose buffers lie on `device`: itself for the host's memory.
  // Throws Error, which names `call`, where there is none.
  virtual Communicator& on(Device device, std::string_view call) {
    check(device.kind == DeviceKind::cpu,
          "{}: the communicator '{}' moves data of the host's memory, not of another device: copy "
          "them to the host first",
          call, name());
    return *this;
  }

  // New group of the ranks that pass the same colour (not negative), ordered by (key, rank).
  // Collective.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  virtual void all_reduce(void* data, int64_t count, DType dtype, ReduceOp op) = 0;
  virtual std::unique_ptr<Request> all_reduce_async(void* data, int64_t count, DType dtype,
                                                    ReduceOp op) = 0;
  // recv has size() * count elements, in rank order.
  virtual void all_gather(const void* send, void* recv, int64_t count, DType dtype) = 0;
  // send has size() * count elements; this rank's summed part arrives in recv.
  virtual void reduce_scatter(const void* send, void* recv, int64_t count, DType dtype,
                              ReduceOp op) = 0;

  // The same with parts of any sizes, zero included, such as the shards of a flat buffer: part r
  // has counts[r] elements ([size()], the same on all ranks), the parts follow each other in rank
  // order. The smaller buffer may be this rank's part of the larger one. One after the other they
  // do what all_reduce does, with the same bits.
  virtual std::unique_ptr<Request> all_gather_async(const void* send, void* recv,
                                                    std::span<const int64_t> counts,
                                                    DType dtype) = 0;
  virtual std::unique_ptr<Request> reduce_scatter_async(const void* send, void* recv,
                                                        std::span<const int64_t> counts,
                                                        DType dtype, ReduceOp op) = 0;

  virtual void broadcast(void* data, int64_t count, DType dtype, int root) = 0;
  virtual void all_to_all_v(const AllToAllV& exchange) = 0;
  virtual void barrier() = 0;

  // Memory at the same offset on every rank that all_reduce can sum in place fastest (shared
  // between the ranks of one node); ordinary memory where there is nothing better. Zeroed.
  // Collective.
  virtual std::shared_ptr<void> allocate(size_t bytes) = 0;

  // Ends all ranks of the program: each gets `message`, the exit status is `exit_code`.
  [[noreturn]] virtual void abort(int exit_code, std::string_view message) = 0;

  // Sum of one value over the ranks: the handy form of all_reduce.
  template <class T>
  T sum(T value) {
    all_reduce(&value, 1, dtype_of<T>(), ReduceOp::sum);
    return value;
  }
  template <class T>
  T max(T value) {
    all_reduce(&value, 1, dtype_of<T>(), ReduceOp::max);
    return value;
  }
  template <class T>
  void sum_in_place(std::span<T> values) {
    all_reduce(values.data(), static_cast<int64_t>(values.size()), dtype_of<T>(), ReduceOp::sum);
  }
};

// The group of one.
std::unique_ptr<Communicator> make_self_communicator();

}  // namespace adagate
