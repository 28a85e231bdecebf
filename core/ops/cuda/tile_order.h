// How the tiles of a matrix follow each other, and which kind of tile makes a product.
#pragma once

#include "core/ops/cuda/simt_tile.h"
#include "core/ops/cuda/tensor_tile.h"

namespace adagate::cuda {

// Blocks take tiles gridDim.x apart, so those that run at the same time follow each other here: the
// tiles of eight rows of tiles, column by column. They share their operands in the second-level
// cache.
struct TileOrder {
  static constexpr int64_t kBand = 8;
  int64_t high, wide;  // rows and columns of tiles

  ADAGATE_HD TileOrder(int64_t rows, int64_t cols, int64_t tile_rows, int64_t tile_cols)
      : high((rows + tile_rows - 1) / tile_rows), wide((cols + tile_cols - 1) / tile_cols) {}
  ADAGATE_HD int64_t count() const { return high * wide; }

  struct Place {
    int64_t row, col;
  };
  ADAGATE_HD Place place(int64_t i) const {
    const int64_t band = i / (kBand * wide), in_band = i - band * kBand * wide;
    const int64_t left = high - band * kBand, rows = left < kBand ? left : kBand;
    return {band * kBand + in_band % rows, in_band / rows};
  }
};

// Blocks of a launch for so many tiles: two for each multiprocessor of the largest GPUs, each of
// which takes one tile after the other.
inline unsigned tile_blocks(int64_t tiles) {
  constexpr int64_t kMost = 2 * 132;
  return static_cast<unsigned>(tiles < kMost ? tiles : kMost);
}

// Calls f.template operator()<Tile>() with what makes a product of such operands.
template <class F>
void visit_tile(DType a, DType b, DType c, bool trans_a, bool trans_b, F&& f) {
  const bool all_same = a == b && a == c;
  if (a == DType::bf16 && b == DType::bf16 && c != DType::f64) {
    if (trans_a && trans_b) return f.template operator()<TensorTile<true, true>>();
    if (trans_a) return f.template operator()<TensorTile<true, false>>();
    if (trans_b) return f.template operator()<TensorTile<false, true>>();
    return f.template operator()<TensorTile<false, false>>();
  }
  if (all_same && a == DType::f32)
    return f.template operator()<SimtTile<float, float, float, float>>();
  if (all_same) return f.template operator()<SimtTile<double, double, double, double>>();
  if (a == DType::f64 || b == DType::f64 || c == DType::f64)
    return f.template operator()<SimtTile<double, void, void, void>>();
  return f.template operator()<SimtTile<float, void, void, void>>();
}

}  // namespace adagate::cuda
