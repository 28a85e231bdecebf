// The shared memory of the block that runs: filled with NaN at its start, with guards behind each
// array, and no more of it than a GPU has.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

namespace adagate::emulator {

class SharedMemory {
 public:
  SharedMemory();
  ~SharedMemory();

  // `limit`: of static and dynamic shared memory together.
  void begin_launch(size_t dynamic_bytes, size_t limit);
  void begin_block();
  // Stops when something was written behind an array.
  void end_block();

  void* dynamic() { return dynamic_; }
  // The array that a line of a kernel declares: the same for every thread of the block.
  void* array(const void* line, size_t bytes);

 private:
  struct Array {
    const void* line;
    unsigned char* data;
    size_t bytes;
  };
  void guard(const unsigned char* data, size_t bytes);
  void check_guard(const unsigned char* data, size_t bytes);

  std::unique_ptr<unsigned char[]> memory_;
  unsigned char* static_ = nullptr;
  unsigned char* dynamic_ = nullptr;
  std::vector<Array> arrays_;
  size_t used_ = 0;  // of static_, guards included
  size_t static_bytes_ = 0, dynamic_bytes_ = 0, limit_ = 0;
};

}  // namespace adagate::emulator
