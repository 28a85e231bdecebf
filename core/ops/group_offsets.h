// Where groups of rows begin (the rows of each expert): rows offsets[g] .. offsets[g + 1] - 1 are
// those of group g.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/tensor/tensor.h"

namespace adagate {

// On the device for kernels, and for the host, which launches products group by group where a
// device has no kernel for all of them, and checks sizes.
struct GroupOffsets {
  Tensor device;              // i64 [groups + 1], from 0 to the number of rows
  std::vector<int64_t> host;  // the same numbers

  GroupOffsets() = default;
  GroupOffsets(Tensor on_device, std::vector<int64_t> on_host)
      : device(std::move(on_device)), host(std::move(on_host)) {}
  GroupOffsets(std::vector<int64_t> numbers, Device where)
      : device(Tensor::from(std::span<const int64_t>(numbers),
                            {static_cast<int64_t>(numbers.size())}, where)),
        host(std::move(numbers)) {}

  int64_t groups() const { return static_cast<int64_t>(host.size()) - 1; }
  // Whether they cover `rows` rows of so many groups.
  bool cover(int64_t groups_wanted, int64_t rows) const {
    return groups() == groups_wanted && host.front() == 0 && host.back() == rows;
  }
};

// 0 and the sums of the first one, two, .. all counts.
std::vector<int64_t> offsets_of(std::span<const int64_t> counts);

}  // namespace adagate
