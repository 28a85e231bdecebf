// Products on matrix tiles, in tests: in memory on every machine, on the processor where it has
// them.
#pragma once

#include <vector>

#include "core/ops/cpu/matrix_tiles.h"

namespace adagate::test {

// What bf16 products can run on here. Without bf16 dot products no kernel asks for tiles.
inline std::vector<MatrixTiles> tested_tiles() {
  std::vector<MatrixTiles> tiles{MatrixTiles::none};
#if ADAGATE_BF16_PRODUCTS
  tiles.push_back(MatrixTiles::emulated);
#endif
  if (matrix_tiles() == MatrixTiles::amx) tiles.push_back(MatrixTiles::amx);
  return tiles;
}

inline const char* name_of(MatrixTiles tiles) {
  return tiles == MatrixTiles::none ? "vectors" : tiles == MatrixTiles::amx ? "AMX" : "emulated";
}

// Products run on `tiles` while it lives.
class UseTiles {
 public:
  explicit UseTiles(MatrixTiles tiles) : before_(matrix_tiles()) { use_matrix_tiles(tiles); }
  ~UseTiles() { use_matrix_tiles(before_); }
  UseTiles(const UseTiles&) = delete;
  UseTiles& operator=(const UseTiles&) = delete;

 private:
  MatrixTiles before_;
};

}  // namespace adagate::test
