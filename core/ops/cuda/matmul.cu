// Matrix products: by cuBLASLt where it has an algorithm, which takes one pass with bias or
// accumulation in it. Own tiles make what it has none for (mixed types, a bias of another type,
// rows on odd addresses), and empty sums. A block takes tiles of the result one after the other.
#include "core/ops/cuda/blas.h"
#include "core/ops/cuda/tile_order.h"
#include "core/ops/cuda/tiled_matmul.h"
#include "core/ops/matmul.h"

namespace adagate {
namespace cuda {

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads) matmul_tiles(MatmulArgs p) {
  ADAGATE_SHARED(unsigned char, shared, Tile::kSharedBytes);
  const TileOrder order(p.m, p.n, Tile::kRows, Tile::kCols);
  for (int64_t i = blockIdx.x; i < order.count(); i += gridDim.x) {
    const TileOrder::Place place = order.place(i);
    Tile::run(p, place.row * Tile::kRows, place.col * Tile::kCols, shared);
  }
}

void tiled_matmul(CudaStream& stream, const MatmulArgs& p) {
  visit_tile(p.a_type, p.b_type, p.c_type, p.trans_a, p.trans_b, [&]<class Tile>() {
    const TileOrder order(p.m, p.n, Tile::kRows, Tile::kCols);
    ADAGATE_LAUNCH(matmul_tiles<Tile>, tile_blocks(order.count()), Tile::kThreads, 0, stream, p);
  });
}

}  // namespace cuda

void launch(CudaStream& stream, const MatmulArgs& args) {
  MatmulArgs p = args;
  if (!p.lda) p.lda = p.trans_a ? p.m : p.k;
  if (!p.ldb) p.ldb = p.trans_b ? p.k : p.n;
  if (!p.ldc) p.ldc = p.n;
  check(!p.bias || !p.accumulate, "matmul: a bias can't be added to an accumulated product");
  if (p.m == 0 || p.n == 0 || (p.k == 0 && p.accumulate)) return;
  if (p.k == 0 || !stream.blas().multiply(p)) cuda::tiled_matmul(stream, p);
}

}  // namespace adagate
