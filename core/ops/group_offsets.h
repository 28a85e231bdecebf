// Where groups of rows begin (the rows of each expert): rows offsets[g] .. offsets[g + 1] - 1 are
// those of group g.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/tensor/tensor.h"

namespace adagate {

// On the device for kernels, and for the host where it has read them. Buffers that they divide have
// `rows` rows: all in use where the host knows, else those up to the last offset; the others are
// room that no kernel reads or writes.
struct GroupOffsets {
  Tensor device;              // i64 [groups + 1], from 0 to the number of rows in use
  std::vector<int64_t> host;  // the same numbers; empty: the host has not read them
  int64_t rows = 0;

  GroupOffsets() = default;
  // Throws Error when the host's numbers don't end with `rows`.
  GroupOffsets(Tensor on_device, std::vector<int64_t> on_host, int64_t all_rows);
  GroupOffsets(std::vector<int64_t> numbers, Device where);

  int64_t groups() const { return device ? device.numel() - 1 : 0; }
  // Whether they divide `buffer_rows` rows into so many groups.
  bool cover(int64_t groups_wanted, int64_t buffer_rows) const {
    return groups() == groups_wanted && rows == buffer_rows;
  }
  // For kernels' arguments: the number of rows in use, on the device; the host's copy or null.
  const int64_t* used() const { return device.data<int64_t>() + groups(); }
  const int64_t* on_host() const { return host.empty() ? nullptr : host.data(); }
};

// 0 and the sums of the first one, two, .. all counts.
std::vector<int64_t> offsets_of(std::span<const int64_t> counts);

}  // namespace adagate
