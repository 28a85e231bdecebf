// What a GPU of the Hopper generation allows.
#pragma once

#include <cstddef>

namespace adagate::emulator {

constexpr unsigned kMostThreads = 1024;             // of a block
constexpr unsigned kMostThreadsZ = 64;              // of a block's third dimension
constexpr unsigned kMostGridX = 2147483647u;        // blocks
constexpr unsigned kMostGridYZ = 65535;             // blocks
constexpr size_t kStaticShared = size_t{48} << 10;  // bytes a block has without asking for more
constexpr size_t kMostShared = size_t{227} << 10;   // bytes a block can have
constexpr size_t kMostParameterBytes = 32764;       // of one launch
constexpr int kMultiprocessors = 132;

}  // namespace adagate::emulator
