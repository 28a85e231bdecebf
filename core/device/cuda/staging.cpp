#include "core/device/cuda/staging.h"

#include <algorithm>
#include <cstring>
#include <deque>

#include "core/device/cuda/check.h"

namespace adagate::cuda {
namespace {

constexpr size_t kPiece = size_t{1} << 20;

}  // namespace

// Pinned on first use and kept: streams live as long as the process.
Staging::Piece& Staging::next_piece() {
  Piece& piece = pieces_[next_];
  next_ = (next_ + 1) % pieces_.size();
  if (!piece.data) {
    ADAGATE_CUDA_CHECK(cudaMallocHost(reinterpret_cast<void**>(&piece.data), kPiece));
    ADAGATE_CUDA_CHECK(cudaEventCreateWithFlags(&piece.used, cudaEventDisableTiming));
  } else {
    ADAGATE_CUDA_CHECK(cudaEventSynchronize(piece.used));
  }
  return piece;
}

void Staging::to_device(void* to, const void* from, size_t bytes) {
  for (size_t at = 0; at < bytes; at += kPiece) {
    size_t n = std::min(kPiece, bytes - at);
    Piece& piece = next_piece();
    std::memcpy(piece.data, static_cast<const std::byte*>(from) + at, n);
    ADAGATE_CUDA_CHECK(cudaMemcpyAsync(static_cast<std::byte*>(to) + at, piece.data, n,
                                       cudaMemcpyHostToDevice, stream_));
    ADAGATE_CUDA_CHECK(cudaEventRecord(piece.used, stream_));
  }
}

// While one piece is emptied the device fills the next ones.
void Staging::to_host(void* to, const void* from, size_t bytes) {
  struct Arriving {
    Piece* piece;
    size_t at, n;
  };
  std::deque<Arriving> arriving;
  auto empty_one = [&] {
    auto [piece, at, n] = arriving.front();
    arriving.pop_front();
    ADAGATE_CUDA_CHECK(cudaEventSynchronize(piece->used));
    std::memcpy(static_cast<std::byte*>(to) + at, piece->data, n);
  };
  for (size_t at = 0; at < bytes; at += kPiece) {
    if (arriving.size() == pieces_.size()) empty_one();
    size_t n = std::min(kPiece, bytes - at);
    Piece& piece = next_piece();
    ADAGATE_CUDA_CHECK(cudaMemcpyAsync(piece.data, static_cast<const std::byte*>(from) + at, n,
                                       cudaMemcpyDeviceToHost, stream_));
    ADAGATE_CUDA_CHECK(cudaEventRecord(piece.used, stream_));
    arriving.push_back({&piece, at, n});
  }
  while (!arriving.empty()) empty_one();
}

}  // namespace adagate::cuda
