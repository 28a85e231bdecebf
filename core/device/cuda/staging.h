// Copies between the host's ordinary memory and a GPU, through pinned pieces: a copy of pageable
// memory would make the host wait, and the device, too.
#pragma once

#include <array>
#include <cstddef>
#include <cuda_runtime_api.h>

namespace adagate::cuda {

// The pieces of one stream, used in turn. One thread at a time.
class Staging {
 public:
  explicit Staging(cudaStream_t stream) : stream_(stream) {}
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // The host's bytes may be written again when the call returns; it waits only for pieces that
  // earlier copies still use.
  void to_device(void* to, const void* from, size_t bytes);
  // Done when the call returns.
  void to_host(void* to, const void* from, size_t bytes);

 private:
  struct Piece {
    std::byte* data = nullptr;
    cudaEvent_t used = nullptr;  // by the last copy that goes through it
  };
  Piece& next_piece();

  cudaStream_t stream_;
  std::array<Piece, 8> pieces_;
  size_t next_ = 0;
};

}  // namespace adagate::cuda
