#include "tests/cuda/emulator/shared_memory.h"

#include <cstdint>
#include <cstring>

#include "core/base/error.h"
#include "tests/cuda/emulator/faults.h"
#include "tests/cuda/emulator/limits.h"
#include "tests/cuda/emulator/sanitizers.h"

namespace adagate::emulator {
namespace {

// Arrays begin on multiples of this and not of twice as much, as ADAGATE_SHARED promises.
constexpr size_t kAlign = 128;
constexpr size_t kGuard = 128;
constexpr size_t kMostArrays = 64;
constexpr size_t kStaticBytes = kStaticShared + kMostArrays * (2 * kAlign + kGuard);
constexpr size_t kDynamicBytes = kMostShared + kGuard;
constexpr unsigned char kPoison = 0xFF;  // NaN in every floating-point type

size_t round_up(size_t bytes) {
  return (bytes + kAlign - 1) / kAlign * kAlign;
}

}  // namespace

SharedMemory::SharedMemory()
    : memory_(new unsigned char[kStaticBytes + kDynamicBytes + 4 * kAlign]) {
  auto start = round_up(reinterpret_cast<uintptr_t>(memory_.get()));
  if (start / kAlign % 2 == 0) start += kAlign;
  static_ = reinterpret_cast<unsigned char*>(start);
  dynamic_ = static_ + (kStaticBytes + 2 * kAlign - 1) / (2 * kAlign) * (2 * kAlign);
}

SharedMemory::~SharedMemory() {
  allow(static_, kStaticBytes + kDynamicBytes);
}

void SharedMemory::begin_launch(size_t dynamic_bytes, size_t limit) {
  arrays_.clear();
  used_ = static_bytes_ = 0;
  dynamic_bytes_ = dynamic_bytes;
  limit_ = limit;
  allow(static_, kStaticBytes);
  std::memset(static_, kPoison, kStaticBytes);
}

void SharedMemory::begin_block() {
  allow(static_, used_);
  std::memset(static_, kPoison, used_);
  for (const Array& array : arrays_) guard(array.data, array.bytes);
  if (dynamic_bytes_ == 0) return;
  allow(dynamic_, dynamic_bytes_ + kGuard);
  std::memset(dynamic_, kPoison, dynamic_bytes_ + kGuard);
  guard(dynamic_, dynamic_bytes_);
}

void SharedMemory::end_block() {
  for (const Array& array : arrays_) check_guard(array.data, array.bytes);
  if (dynamic_bytes_ > 0) check_guard(dynamic_, dynamic_bytes_);
}

void* SharedMemory::array(const void* line, size_t bytes) {
  for (const Array& array : arrays_)
    if (array.line == line) return array.data;
  static_bytes_ += bytes;
  if (static_bytes_ > kStaticShared || static_bytes_ + dynamic_bytes_ > limit_)
    stop(
        fmt::format("{} bytes of shared arrays and {} of dynamic shared memory; at most {} are "
                    "allowed",
                    static_bytes_, dynamic_bytes_, limit_));
  if (arrays_.size() == kMostArrays) stop(fmt::format("more than {} shared arrays", kMostArrays));
  unsigned char* data = static_ + used_;
  used_ += round_up(bytes) + kGuard;
  if (used_ / kAlign % 2 != 0) used_ += kAlign;
  guard(data, bytes);
  arrays_.push_back({line, data, bytes});
  return data;
}

// With AddressSanitizer every access behind an array is an error; the guard can't be read then.
void SharedMemory::guard(const unsigned char* data, size_t bytes) {
  forbid(data + bytes, kGuard);
}

void SharedMemory::check_guard(const unsigned char* data, size_t bytes) {
  if (kAsan) return;
  for (const unsigned char* at = data + bytes; at < data + bytes + kGuard; ++at)
    if (*at != kPoison)
      stop(fmt::format("the block wrote {} bytes behind a shared array of {} bytes",
                       at - data - static_cast<ptrdiff_t>(bytes), bytes));
}

}  // namespace adagate::emulator
