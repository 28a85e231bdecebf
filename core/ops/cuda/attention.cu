// Blockwise attention, forward. A block has a tile of queries of one (sample, head), 64 in bf16, 32
// in f32 and f64; keys and values pass by in tiles, each read once a block. Scores of a tile stand
// in shared memory, where the lanes that share a row turn them into weights in their place (the
// running softmax of flash attention); the output's sums stay in registers. Long (causal) tiles go
// first. Keys and values of a head are read by all its queries' blocks from the second-level cache.
#include "core/ops/attention.h"
#include "core/ops/cuda/attention_blocks.h"
#include "core/ops/cuda/attention_rows.h"
#include "core/ops/cuda/reduce.h"

namespace adagate {
namespace cuda {

// What the lanes that share a query know of it.
template <class C>
struct QueryState {
  int limit;            // keys that it sees
  uint32_t key32;       // of its dropout draws
  C largest = kHidden;  // score so far, times log2 e
  C sum = 0;            // of this lane's weights
};

// Turns a row's scores of the keys [key, key + kOther) into weights, in their place. Returns what
// sums before have to be multiplied with.
template <class T, class P>
__device__ inline typename P::C weigh_scores(const AttentionArgs& a, int key, typename P::C* scores,
                                             QueryState<typename P::C>& query) {
  using Block = AttentionBlock<T, P>;
  using C = typename P::C;
  const int r = Block::lane() / Block::kShare, part = Block::part();
  const C scale = static_cast<C>(a.scale * kLog2E);
  C score[Block::kEach], largest = query.largest;
#pragma unroll
  for (int i = 0; i < Block::kEach; ++i) {
    const int n = part + i * Block::kShare;
    score[i] = key + n < query.limit ? scores[r * P::kScoreStride + n] * scale : C(kHidden);
    largest = score[i] > largest ? score[i] : largest;
  }
  largest = Block::over_row(largest, Max{});
  const C rescale = power_of_2(query.largest - largest);
  query.largest = largest;
  query.sum *= rescale;
  auto* weights = reinterpret_cast<typename P::Operand*>(scores) + r * P::kWeightStride;
  __syncwarp();  // weights take the place of scores that other lanes have read
#pragma unroll
  for (int i = 0; i < Block::kEach; ++i) {
    const int n = part + i * Block::kShare;
    C weight = power_of_2(score[i] - largest);
    query.sum += weight;
    if (a.addresses)
      weight *= static_cast<C>(a.mask.factor(query.key32, static_cast<uint32_t>(key + n)));
    weights[n] = typename P::Operand(weight);
  }
  return rescale;
}

template <class T, class P>
__global__ void __launch_bounds__(AttentionBlock<T, P>::kThreads)
    attention_tiles(AttentionArgs a, int64_t units, bool pack_q, bool pack_kv) {
  using Block = AttentionBlock<T, P>;
  using C = typename P::C;
  using Operand = typename P::Operand;
  ADAGATE_DYNAMIC_SHARED(unsigned char, memory);
  unsigned char* next = memory;
  auto* q = Block::template take<Operand>(next, Block::kTileBytes);
  auto* k = Block::template take<Operand>(next, Block::kOtherBytes);
  auto* v = Block::template take<Operand>(next, Block::kOtherBytes);
  auto* scores = Block::template take<C>(next, Block::kScoreBytes);
  auto* factors = Block::template take<C>(next, Block::kFactorBytes);
  factors += Block::warp_row() * P::kFactors;
  scores += Block::warp_row() * P::kScoreStride;

  const int64_t unit = blockIdx.x % units, sample = unit / a.heads, head = unit % a.heads;
  const int64_t kv_head = head / (a.heads / a.kv_heads);
  const auto tile = static_cast<int>(gridDim.x / units - 1 - blockIdx.x / units);
  const auto queries = static_cast<int>(a.queries), head_dim = static_cast<int>(a.head_dim);
  const int first = tile * Block::kRows;
  const int end = first + Block::kRows < queries ? first + Block::kRows : queries;
  const SampleRows rows(a, sample);
  const int real_end = rows.queries < first ? first : rows.queries < end ? rows.queries : end;
  const HeadRows<T> output(a.output, sample, head, head_dim);
  C* lse = a.lse ? static_cast<C*>(a.lse) + unit * queries : nullptr;
  for (int t = real_end + Block::warp(); t < end; t += Block::kWarps) {
    zero_row(output, t, head_dim);
    if (lse && Block::lane() == 0) lse[t] = C(0);
  }
  if (real_end == first) return;

  const Angles<C> key_angles(a, a.rotate_keys, 0);
  const HeadRows<const T> key_rows(a.k, sample, kv_head, head_dim);
  const HeadRows<const T> value_rows(a.v, sample, kv_head, head_dim);
  Block::template load_tile<Block::kRows>(HeadRows<const T>(a.q, sample, head, head_dim), first,
                                          real_end - first, head_dim,
                                          Angles<C>(a, true, rows.start), pack_q, q);
  const int query = first + Block::lane_row(), limit = rows.key_limit(real_end);
  QueryState<C> state{.limit = rows.key_limit(query + 1), .key32 = 0};
  if (a.addresses && query < real_end) state.key32 = dropout_key(a, sample, head, query);
  const int warp_limit = rows.key_limit(first + Block::warp_row() + P::kRows);
  typename P::Sums sums;
  for (int key = 0; key < limit; key += P::kOther) {
    const int count = limit - key < P::kOther ? limit - key : P::kOther;
    __syncthreads();
    Block::template load_tile<P::kOther>(key_rows, key, count, head_dim, key_angles, pack_kv, k);
    Block::template load_tile<P::kOther>(value_rows, key, count, head_dim, {}, pack_kv, v);
    __syncthreads();
    if (key >= warp_limit) continue;
    P::scores(q + Block::warp_row() * P::kStride, k, scores);
    __syncwarp();
    const C rescale = weigh_scores<T, P>(a, key, scores, state);
    P::put_factor(factors, rescale);
    __syncwarp();
    sums.rescale(factors);
    sums.add(reinterpret_cast<const Operand*>(scores), v);
    __syncwarp();
  }

  const C sum = Block::over_row(state.sum, Add{});
  // Without keys: nothing to mix.
  P::put_factor(factors, state.limit > 0 ? C(1) / sum : C(0));
  if (lse && query < real_end && Block::part() == 0)
    lse[query] = state.limit > 0 ? state.largest + log_2(sum) : C(0);
  __syncthreads();  // no warp needs keys and values any more
  C* out = reinterpret_cast<C*>(k) + Block::warp_row() * P::kSumStride;
  sums.store(out);
  __syncwarp();
  for (int r = 0; r < P::kRows && first + Block::warp_row() + r < real_end; ++r)
    write_row(output, first + Block::warp_row() + r, head_dim, out + r * P::kSumStride,
              factors[r * P::kFactors], Angles<C>(), false);
}

namespace {

template <class T, int kDim>
void attend_in_tiles(CudaStream& stream, const AttentionArgs& a) {
  using P = ProductsOf<T, kDim>;
  using Block = AttentionBlock<T, P>;
  constexpr size_t kBytes =
      Block::kTileBytes + 2 * Block::kOtherBytes + Block::kScoreBytes + Block::kFactorBytes;
  const int64_t units = a.batch * a.heads, tiles = (a.queries + Block::kRows - 1) / Block::kRows;
  ADAGATE_ALLOW_SHARED((attention_tiles<T, P>), kBytes);
  ADAGATE_LAUNCH((attention_tiles<T, P>), static_cast<unsigned>(units * tiles), Block::kThreads,
                 kBytes, stream, a, units, rows_pack(a.q, a),
                 rows_pack(a.k, a) && rows_pack(a.v, a));
}

// Few queries without gradient: a tile of them would be mostly empty.
bool goes_row_by_row(const AttentionArgs& a) {
  constexpr int64_t kFew = 8;
  return (a.queries < kFew && !a.lse) || a.head_dim > kMostHeadDim;
}

}  // namespace
}  // namespace cuda

void launch(CudaStream& stream, const AttentionArgs& a) {
  if (a.batch * a.heads * a.queries == 0) return;
  if (cuda::goes_row_by_row(a)) {
    cuda::attend_row_by_row(stream, a);
    return;
  }
  visit_floating(a.dtype, [&](auto type) {
    cuda::visit_head_dim(
        a.head_dim, [&]<int kDim>() { cuda::attend_in_tiles<decltype(type), kDim>(stream, a); });
  });
}

}  // namespace adagate
