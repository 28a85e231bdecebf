// The products of all groups of rows (the experts'). Two ways:
// - own: one launch for all groups, which reads where they begin on the device: nothing waits for
//   the host. Blocks take 128 x 128 tiles (tensor cores; 64 x 64 on CUDA cores) of one group's
//   result after the other; each finds its tiles by adding up the groups' numbers of tiles.
// - loop: one cuBLASLt product a group, where the host knows the offsets. Its kernels are faster,
//   but a small product leaves most of a GPU idle.
#include <cstdlib>
#include <string_view>

#include "core/ops/cuda/blas.h"
#include "core/ops/cuda/tile_order.h"
#include "core/ops/cuda/tiled_matmul.h"
#include "core/ops/grouped_linear.h"
#include "core/ops/matmul.h"

namespace adagate {
namespace cuda {

using Kind = GroupedMatmulArgs::Kind;

ADAGATE_HD inline void* element_at(const void* base, int64_t i, DType type) {
  const auto bytes = static_cast<int64_t>(type == DType::f64 ? 8 : type == DType::bf16 ? 2 : 4);
  return base ? const_cast<char*>(static_cast<const char*>(base)) + i * bytes : nullptr;
}

// The product of group g, whose rows are [begin, end).
ADAGATE_HD inline MatmulArgs product_of_group(const GroupedMatmulArgs& p, int64_t g, int64_t begin,
                                              int64_t end) {
  const bool rows = p.kind == Kind::rows;
  MatmulArgs q;
  q.a = element_at(p.a, begin * p.k, p.a_type);
  q.b = element_at(p.b, rows ? g * p.k * p.m : begin * p.m, p.b_type);
  q.c = element_at(p.c, rows ? begin * p.m : g * p.k * p.m, p.c_type);
  q.bias = rows ? element_at(p.bias, g * p.m, p.bias_type) : nullptr;
  q.m = rows ? end - begin : p.k;
  q.n = p.m;
  q.k = rows ? p.k : end - begin;
  q.trans_a = !rows;
  q.trans_b = rows && p.trans_b;
  q.lda = p.k;
  q.ldb = q.trans_b ? p.k : p.m;
  q.ldc = p.m;
  q.a_type = p.a_type;
  q.b_type = p.b_type;
  q.c_type = p.c_type;
  q.bias_type = p.bias_type;
  q.accumulate = p.accumulate;
  return q;
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads) grouped_matmul_tiles(GroupedMatmulArgs p) {
  ADAGATE_SHARED(unsigned char, shared, Tile::kSharedBytes);
  int64_t next = blockIdx.x, first = 0;  // this block's next tile, and the group's first
  for (int64_t g = 0; g < p.groups; ++g) {
    const MatmulArgs product = product_of_group(p, g, p.offsets[g], p.offsets[g + 1]);
    const TileOrder order(product.m, product.n, Tile::kRows, Tile::kCols);
    const int64_t end = first + order.count();
    const bool stays = product.k == 0 && product.accumulate;  // a group without rows
    for (; next < end; next += gridDim.x) {
      if (stays) continue;
      const TileOrder::Place place = order.place(next - first);
      Tile::run(product, place.row * Tile::kRows, place.col * Tile::kCols, shared);
    }
    first = end;
  }
}

namespace {

void multiply_in_one_launch(CudaStream& stream, const GroupedMatmulArgs& args) {
  GroupedMatmulArgs p = args;
  p.host_offsets = nullptr;  // nothing for a kernel
  const bool rows = p.kind == Kind::rows;
  visit_tile(p.a_type, p.b_type, p.c_type, !rows, rows && p.trans_b, [&]<class Tile>() {
    // Each group may have one row of tiles that is not full.
    const int64_t most_rows = rows ? p.rows + p.groups * (Tile::kRows - 1) : p.k;
    const int64_t tiles = TileOrder(most_rows, p.m, Tile::kRows, Tile::kCols).count();
    const unsigned blocks = tile_blocks(rows ? tiles : tiles * p.groups);
    ADAGATE_LAUNCH(grouped_matmul_tiles<Tile>, blocks, Tile::kThreads, 0, stream, p);
  });
}

void zero(CudaStream& stream, const MatmulArgs& p) {
  ADAGATE_CUDA_CHECK(
      cudaMemsetAsync(p.c, 0, static_cast<size_t>(p.m * p.n) * size_of(p.c_type), stream.handle()));
}

void multiply_one_by_one(CudaStream& stream, const GroupedMatmulArgs& p) {
  const Varying varying = p.kind == Kind::rows ? Varying::rows : Varying::depth;
  for (int64_t g = 0; g < p.groups; ++g) {
    const auto product = product_of_group(p, g, p.host_offsets[g], p.host_offsets[g + 1]);
    if (product.m == 0) continue;
    if (product.k == 0) {
      if (!product.accumulate) zero(stream, product);
    } else if (!stream.blas().multiply(product, varying)) {
      tiled_matmul(stream, product);
    }
  }
}

enum class Way : uint8_t { own, loop };

// ADAGATE_CUDA_GROUPED=own or loop; else by the groups' mean size, from which on a product fills
// the GPU. Where the library's other kernels for groups come in, they are chosen here.
Way choose(const GroupedMatmulArgs& p) {
  if (!p.host_offsets || p.k == 0) return Way::own;  // an empty sum is the bias alone
  if (const char* wanted = std::getenv("ADAGATE_CUDA_GROUPED")) {
    const std::string_view way = wanted;
    check(way == "own" || way == "loop", "ADAGATE_CUDA_GROUPED is \"{}\", not own or loop", way);
    return way == "own" ? Way::own : Way::loop;
  }
  constexpr int64_t kManyRows = 512;
  const int64_t rows = p.host_offsets[p.groups] - p.host_offsets[0];
  // Own products in f32 and f64 don't use tensor cores: there, the library is always ahead.
  return p.a_type != DType::bf16 || rows >= kManyRows * p.groups ? Way::loop : Way::own;
}

}  // namespace
}  // namespace cuda

void launch(CudaStream& stream, const GroupedMatmulArgs& p) {
  check(!p.bias || !p.accumulate, "grouped_matmul: a bias can't be added to accumulated products");
  if (p.groups == 0 || p.m == 0) return;
  if (p.kind == GroupedMatmulArgs::Kind::weights ? p.k == 0 : p.rows == 0) return;
  if (cuda::choose(p) == cuda::Way::loop) {
    cuda::multiply_one_by_one(stream, p);
  } else {
    cuda::multiply_in_one_launch(stream, p);
  }
}

}  // namespace adagate
