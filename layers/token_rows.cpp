#include "layers/token_rows.h"

#include <algorithm>

namespace adagate {
namespace {

// i32 [rows]: 0, 1, .. for each sample.
Tensor counted_positions(const TokenRows& rows) {
  Tensor positions = Tensor::empty({rows.rows}, DType::i32);
  auto* p = positions.data<int32_t>();
  for (int64_t i = 0; i < rows.rows; ++i)
    p[i] = static_cast<int32_t>(rows.start + i % rows.sequence);
  return positions;
}

Tensor mask_of(std::span<const int32_t> lengths, int64_t sequence) {
  Tensor mask = Tensor::empty({static_cast<int64_t>(lengths.size()) * sequence}, DType::u8);
  auto* m = mask.data<uint8_t>();
  for (int32_t length : lengths)
    for (int64_t t = 0; t < sequence; ++t) *m++ = t < length;
  return mask;
}

}  // namespace

TokenRows TokenRows::to(Device device) const {
  TokenRows there = *this;
  for (Tensor* t : {&there.starts, &there.lengths, &there.mask, &there.positions, &there.addresses,
                    &there.sample_ids})
    if (*t) *t = t->to(device);
  return there;
}

TokenRows padded_rows(int64_t samples, int64_t sequence, int64_t start) {
  TokenRows rows{
      .samples = samples, .sequence = sequence, .start = start, .rows = samples * sequence};
  rows.positions = counted_positions(rows);
  return rows;
}

TokenRows padded_rows(std::span<const int32_t> lengths, int64_t sequence) {
  TokenRows rows = padded_rows(static_cast<int64_t>(lengths.size()), sequence);
  bool full = true;
  for (int32_t length : lengths) {
    check(length >= 0 && length <= sequence, "a sample of {} tokens, padded to {}", length,
          sequence);
    full = full && length == sequence;
  }
  if (full) return rows;
  rows.lengths = Tensor::from(lengths, {rows.samples});
  rows.mask = mask_of(lengths, sequence);
  return rows;
}

TokenRows packed_rows(std::span<const int32_t> lengths) {
  TokenRows rows{.samples = static_cast<int64_t>(lengths.size())};
  rows.starts = Tensor::zeros({rows.samples + 1}, DType::i32);
  auto* starts = rows.starts.data<int32_t>();
  for (size_t s = 0; s < lengths.size(); ++s) {
    check(lengths[s] >= 0, "a sample of {} tokens", lengths[s]);
    starts[s + 1] = starts[s] + lengths[s];
    rows.sequence = std::max<int64_t>(rows.sequence, lengths[s]);
  }
  rows.rows = starts[rows.samples];
  rows.positions = Tensor::empty({rows.rows}, DType::i32);
  auto* p = rows.positions.data<int32_t>();
  for (int32_t length : lengths)
    for (int32_t t = 0; t < length; ++t) *p++ = t;
  return rows;
}

void set_addresses(TokenRows& rows, std::span<const int64_t> places) {
  check(static_cast<int64_t>(places.size()) == rows.samples, "{} places for {} samples",
        places.size(), rows.samples);
  rows.addresses = Tensor::empty({rows.rows}, DType::i64);
  auto* addresses = rows.addresses.data<int64_t>();
  const int32_t* starts = rows.packed() ? rows.starts.data<int32_t>() : nullptr;
  for (int64_t s = 0; s < rows.samples; ++s) {
    int64_t count = starts ? starts[s + 1] - starts[s] : rows.sequence;
    // Not the row's number: how far the micro-batch is padded must not matter.
    for (int64_t t = 0; t < count; ++t)
      *addresses++ = (places[static_cast<size_t>(s)] << 32) + rows.start + t;
  }
}

}  // namespace adagate
