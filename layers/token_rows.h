// Where the tokens of a micro-batch are: which rows of the [rows, width] tensors between layers
// belong to which sample. Two forms:
//
//   padded  each sample has `sequence` rows, its real tokens first
//   packed  samples stand one behind the other with no padding: sample s has the rows
//           [starts[s], starts[s + 1])
//
// Layers that work on each token alone take either form; attention, which mixes tokens, takes
// padded samples and refuses packed ones. Made once where a batch is made, not by layers.
#pragma once

#include <cstdint>
#include <span>

#include "core/tensor/tensor.h"

namespace adagate {

struct TokenRows {
  int64_t samples = 0;   // on this rank, possibly none
  int64_t sequence = 0;  // rows of each sample; packed: of the longest
  int64_t start = 0;     // position of the first row, of the longest sample if a cache has others
  int64_t rows = 0;      // of all samples, padding included

  Tensor starts = {};      // i32 [samples + 1], empty when padded
  Tensor lengths = {};     // i32 [samples], padded only: real tokens of each; empty: all are full
  Tensor mask = {};        // u8 [rows], 1 = real token; empty: all are
  Tensor positions = {};   // i32 [rows], a token's place in its sample
  Tensor addresses = {};   // i64 [rows], what a token's random draws are addressed by; empty: none
  Tensor sample_ids = {};  // i64 [samples], places in the data set, for observers; empty: unknown

  bool packed() const { return static_cast<bool>(starts); }
  TokenRows to(Device device) const;
};

// `samples` full samples of `sequence` tokens, the first of each at position `start`.
TokenRows padded_rows(int64_t samples, int64_t sequence, int64_t start = 0);

// Samples of these lengths, padded to `sequence`. Throws Error on a length out of [0, sequence].
TokenRows padded_rows(std::span<const int32_t> lengths, int64_t sequence);

// Samples of these lengths one behind the other. Throws Error on a negative length.
TokenRows packed_rows(std::span<const int32_t> lengths);

// Gives each token an address made of its sample's place in the step's global batch, one of
// `places` [samples], and its position: the same in either form and on every layout.
void set_addresses(TokenRows& rows, std::span<const int64_t> places);

}  // namespace adagate
