// Blockwise attention, backward. The weights are computed again from q, k and the saved
// log-sum-exp. Every sum has one owner and one order, no atomics: one kernel has blocks with a tile
// of queries, past which the keys that they see go by, and makes dQ; one has blocks with a tile of
// keys, past which the queries of all heads of their group go by, and makes dK and dV. That is
// seven products a pair of tiles instead of five. A third kernel, before them, makes delta = dO . O
// of each query. Tiles as in attention.cu; for heads of more than 128 dimensions dK and dV are made
// one after the other, since registers don't hold the sums of both.
#include <algorithm>

#include "core/ops/cuda/attention_blocks.h"
#include "core/ops/cuda/attention_rows.h"
#include "core/ops/cuda/reduce.h"

namespace adagate {
namespace cuda {

// Which gradients of a tile of keys a launch makes.
enum class KeyGradients : uint8_t { both, dk, dv };

// The lane's part of a row of scores -> weights, and of dO V^T -> the scores' gradients
// dS = P (dP - delta), each in its place as operands. `seen(n)` tells whether column n counts,
// `lse(n)`, `delta(n)` and `factor(n)`, of dropout, belong to it.
template <class T, class P, bool kWeights, bool kScores, class Seen, class Lse, class Delta,
          class Factor>
__device__ inline void score_gradients(typename P::C scale, typename P::C* scores,
                                       typename P::C* dscores, Seen&& seen, Lse&& lse,
                                       Delta&& delta, Factor&& factor) {
  using Block = AttentionBlock<T, P>;
  using C = typename P::C;
  using Operand = typename P::Operand;
  // A few at a time, for the registers' sake. Operands are no wider than scores, so they take the
  // place of scores that have been read.
  constexpr int kSome = Block::kEach < 8 ? Block::kEach : 8;
  const int r = Block::lane() / Block::kShare;
  auto* weights = reinterpret_cast<Operand*>(scores) + r * P::kWeightStride;
  auto* gradients = reinterpret_cast<Operand*>(dscores) + r * P::kWeightStride;
#pragma unroll
  for (int first = 0; first < Block::kEach; first += kSome) {
    C weight[kSome], dscore[kSome];
#pragma unroll
    for (int i = 0; i < kSome; ++i) {
      const int n = Block::part() + (first + i) * Block::kShare, at = r * P::kScoreStride + n;
      const C plain = seen(n) ? power_of_2(scores[at] * scale - lse(n)) : C(0);
      const C kept = factor(n);
      weight[i] = plain * kept;
      if constexpr (kScores) dscore[i] = plain * (dscores[at] * kept - delta(n));
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kSome; ++i) {
      const int n = Block::part() + (first + i) * Block::kShare;
      if constexpr (kWeights) weights[n] = Operand(weight[i]);
      if constexpr (kScores) gradients[n] = Operand(dscore[i]);
    }
  }
  __syncwarp();
}

template <class T, class P>
__global__ void __launch_bounds__(AttentionBlock<T, P>::kThreads)
    attention_backward_queries(AttentionBackwardArgs args, const typename P::C* deltas,
                               int64_t units, bool pack_rows, bool pack_kv) {
  using Block = AttentionBlock<T, P>;
  using C = typename P::C;
  using Operand = typename P::Operand;
  const AttentionArgs& a = args.forward;
  ADAGATE_DYNAMIC_SHARED(unsigned char, memory);
  unsigned char* next = memory;
  auto* q = Block::template take<Operand>(next, Block::kTileBytes);
  auto* dout = Block::template take<Operand>(next, Block::kTileBytes);
  auto* k = Block::template take<Operand>(next, Block::kOtherBytes);
  auto* v = Block::template take<Operand>(next, Block::kOtherBytes);
  auto* scores = Block::template take<C>(next, Block::kScoreBytes);
  auto* dscores = Block::template take<C>(next, Block::kScoreBytes);
  const int warp_row = Block::warp_row();
  scores += warp_row * P::kScoreStride;
  dscores += warp_row * P::kScoreStride;

  const int64_t unit = blockIdx.x % units, sample = unit / a.heads, head = unit % a.heads;
  const int64_t kv_head = head / (a.heads / a.kv_heads);
  const auto tile = static_cast<int>(gridDim.x / units - 1 - blockIdx.x / units);
  const auto queries = static_cast<int>(a.queries), head_dim = static_cast<int>(a.head_dim);
  const int first = tile * Block::kRows;
  const int end = first + Block::kRows < queries ? first + Block::kRows : queries;
  const SampleRows rows(a, sample);
  const int real_end = rows.queries < first ? first : rows.queries < end ? rows.queries : end;
  const HeadRows<T> dq(args.dq, sample, head, head_dim);
  for (int t = real_end + Block::warp(); t < end && !args.accumulate_dq; t += Block::kWarps)
    zero_row(dq, t, head_dim);
  if (real_end == first) return;

  const Angles<C> angles(a, true, rows.start), key_angles(a, a.rotate_keys, 0);
  const HeadRows<const T> key_rows(a.k, sample, kv_head, head_dim);
  const HeadRows<const T> value_rows(a.v, sample, kv_head, head_dim);
  Block::template load_tile<Block::kRows>(HeadRows<const T>(a.q, sample, head, head_dim), first,
                                          real_end - first, head_dim, angles, pack_rows, q);
  Block::template load_tile<Block::kRows>(HeadRows<const T>(args.doutput, sample, head, head_dim),
                                          first, real_end - first, head_dim, {}, pack_rows, dout);
  const int query = first + Block::lane_row();
  const bool real = query < real_end;
  const C lse = real ? static_cast<const C*>(a.lse)[unit * queries + query] : C(0);
  const C delta = real ? deltas[unit * queries + query] : C(0);
  const uint32_t key32 = real && a.addresses ? dropout_key(a, sample, head, query) : 0;
  const int query_limit = real ? rows.key_limit(query + 1) : 0;
  const int limit = rows.key_limit(real_end),
            warp_limit = rows.key_limit(first + warp_row + P::kRows);
  const C scale = static_cast<C>(a.scale * kLog2E);
  typename P::Sums sums;
  for (int key = 0; key < limit; key += P::kOther) {
    const int count = limit - key < P::kOther ? limit - key : P::kOther;
    __syncthreads();
    Block::template load_tile<P::kOther>(key_rows, key, count, head_dim, key_angles, pack_kv, k);
    Block::template load_tile<P::kOther>(value_rows, key, count, head_dim, {}, pack_kv, v);
    __syncthreads();
    if (key >= warp_limit) continue;
    P::scores(q + warp_row * P::kStride, k, scores);
    P::scores(dout + warp_row * P::kStride, v, dscores);
    __syncwarp();
    score_gradients<T, P, false, true>(
        scale, scores, dscores, [&](int n) { return key + n < query_limit; },
        [&](int) { return lse; }, [&](int) { return delta; },
        [&](int n) {
          return a.addresses ? static_cast<C>(a.mask.factor(key32, static_cast<uint32_t>(key + n)))
                             : C(1);
        });
    sums.add(reinterpret_cast<const Operand*>(dscores), k);
    __syncwarp();
  }
  __syncthreads();
  C* out = reinterpret_cast<C*>(k) + warp_row * P::kSumStride;
  sums.store(out);
  __syncwarp();
  for (int r = 0; r < P::kRows && first + warp_row + r < real_end; ++r)
    write_row(dq, first + warp_row + r, head_dim, out + r * P::kSumStride, static_cast<C>(a.scale),
              angles, args.accumulate_dq);
}

// The rows [first, first + kRows) of keys that are real get factor * sums, those past them zeros.
template <class T, class P>
__device__ inline void write_key_gradient(const HeadsView& view, int64_t sample, int64_t kv_head,
                                          const AttentionArgs& a, int first, int seen,
                                          const typename P::Sums& sums, typename P::C* out,
                                          typename P::C factor, const Angles<typename P::C>& angles,
                                          bool accumulate) {
  if (!view.data) return;
  using Block = AttentionBlock<T, P>;
  const auto keys = static_cast<int>(a.keys), head_dim = static_cast<int>(a.head_dim);
  const HeadRows<T> to(view, sample, kv_head, head_dim);
  __syncwarp();
  sums.store(out);
  __syncwarp();
  for (int r = 0; r < P::kRows && first + Block::warp_row() + r < keys; ++r) {
    const int t = first + Block::warp_row() + r;
    if (t < seen) {
      write_row(to, t, head_dim, out + r * P::kSumStride, factor, angles, accumulate);
    } else if (!accumulate) {
      zero_row(to, t, head_dim);
    }
  }
}

template <class T, class P, KeyGradients kWanted>
__global__ void __launch_bounds__(AttentionBlock<T, P>::kThreads)
    attention_backward_keys(AttentionBackwardArgs args, const typename P::C* deltas, int64_t units,
                            bool pack_rows, bool pack_kv) {
  using Block = AttentionBlock<T, P>;
  using C = typename P::C;
  using Operand = typename P::Operand;
  constexpr bool kDk = kWanted != KeyGradients::dv, kDv = kWanted != KeyGradients::dk;
  const AttentionArgs& a = args.forward;
  ADAGATE_DYNAMIC_SHARED(unsigned char, memory);
  unsigned char* next = memory;
  auto* k = Block::template take<Operand>(next, Block::kTileBytes);
  auto* v = Block::template take<Operand>(next, Block::kTileBytes);
  auto* q = Block::template take<Operand>(next, Block::kOtherBytes);
  auto* dout = Block::template take<Operand>(next, Block::kOtherBytes);
  auto* scores = Block::template take<C>(next, Block::kScoreBytes);
  auto* dscores = Block::template take<C>(next, Block::kScoreBytes);
  auto* lse = Block::template take<C>(next, P::kOther * sizeof(C));
  auto* delta = Block::template take<C>(next, P::kOther * sizeof(C));
  auto* key32 = Block::template take<uint32_t>(next, P::kOther * sizeof(uint32_t));
  const int warp_row = Block::warp_row();
  scores += warp_row * P::kScoreStride;
  dscores += warp_row * P::kScoreStride;

  const int64_t unit = blockIdx.x % units, sample = unit / a.kv_heads, kv_head = unit % a.kv_heads;
  const int64_t group = a.heads / a.kv_heads;
  const auto queries = static_cast<int>(a.queries), head_dim = static_cast<int>(a.head_dim);
  const int first = static_cast<int>(blockIdx.x / units) * Block::kRows;
  const SampleRows rows(a, sample);
  const Angles<C> angles(a, true, rows.start), key_angles(a, a.rotate_keys, 0);
  const int real = rows.seen - first < Block::kRows ? rows.seen - first : Block::kRows;
  Block::template load_tile<Block::kRows>(HeadRows<const T>(a.k, sample, kv_head, head_dim), first,
                                          real, head_dim, key_angles, pack_kv, k);
  Block::template load_tile<Block::kRows>(HeadRows<const T>(a.v, sample, kv_head, head_dim), first,
                                          real, head_dim, {}, pack_kv, v);
  const int key = first + Block::lane_row();
  const C scale = static_cast<C>(a.scale * kLog2E);
  // The first query that sees a key of the tile; none does when the tile has no real keys.
  const int earliest = a.causal && first > rows.start ? first - rows.start : 0;
  const int query_end = real > 0 ? rows.queries : 0;
  typename P::Sums dk_sums, dv_sums;
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    const HeadRows<const T> query_rows(a.q, sample, head, head_dim);
    const HeadRows<const T> dout_rows(args.doutput, sample, head, head_dim);
    const int64_t of_head = (sample * a.heads + head) * queries;
    for (int t = earliest; t < query_end; t += P::kOther) {
      const int count = query_end - t < P::kOther ? query_end - t : P::kOther;
      __syncthreads();
      Block::template load_tile<P::kOther>(query_rows, t, count, head_dim, angles, pack_rows, q);
      Block::template load_tile<P::kOther>(dout_rows, t, count, head_dim, {}, pack_rows, dout);
      for (int i = static_cast<int>(threadIdx.x); i < P::kOther; i += Block::kThreads) {
        lse[i] = i < count ? static_cast<const C*>(a.lse)[of_head + t + i] : C(0);
        delta[i] = i < count ? deltas[of_head + t + i] : C(0);
        key32[i] = i < count && a.addresses ? dropout_key(a, sample, head, t + i) : 0;
      }
      __syncthreads();
      P::scores(k + warp_row * P::kStride, q, scores);
      if constexpr (kDk) P::scores(v + warp_row * P::kStride, dout, dscores);
      __syncwarp();
      score_gradients<T, P, kDv, kDk>(
          scale, scores, dscores,
          [&](int n) { return n < count && (!a.causal || rows.start + t + n >= key); },
          [&](int n) { return lse[n]; }, [&](int n) { return delta[n]; },
          [&](int n) {
            return a.addresses ? static_cast<C>(a.mask.factor(key32[n], static_cast<uint32_t>(key)))
                               : C(1);
          });
      if constexpr (kDv) dv_sums.add(reinterpret_cast<const Operand*>(scores), dout);
      if constexpr (kDk) dk_sums.add(reinterpret_cast<const Operand*>(dscores), q);
    }
  }
  __syncthreads();
  C* out = reinterpret_cast<C*>(q) + warp_row * P::kSumStride;
  if constexpr (kDv)
    write_key_gradient<T, P>(args.dv, sample, kv_head, a, first, rows.seen, dv_sums, out, C(1), {},
                             args.accumulate_dv);
  if constexpr (kDk)
    write_key_gradient<T, P>(args.dk, sample, kv_head, a, first, rows.seen, dk_sums, out,
                             static_cast<C>(a.scale), key_angles, args.accumulate_dk);
}

namespace {

template <class T, class P, KeyGradients kWanted>
void make_key_gradients(CudaStream& stream, const AttentionBackwardArgs& args,
                        const typename P::C* deltas, bool pack_rows, bool pack_kv) {
  using Block = AttentionBlock<T, P>;
  const AttentionArgs& a = args.forward;
  constexpr size_t kBytes = 2 * Block::kTileBytes + 2 * Block::kOtherBytes +
                            2 * Block::kScoreBytes +
                            P::kOther * (2 * sizeof(typename P::C) + sizeof(uint32_t));
  const int64_t units = a.batch * a.kv_heads, tiles = (a.keys + Block::kRows - 1) / Block::kRows;
  if (tiles == 0) return;
  ADAGATE_ALLOW_SHARED((attention_backward_keys<T, P, kWanted>), kBytes);
  ADAGATE_LAUNCH((attention_backward_keys<T, P, kWanted>), static_cast<unsigned>(units * tiles),
                 Block::kThreads, kBytes, stream, args, deltas, units, pack_rows, pack_kv);
}

template <class T, class P>
void make_query_gradients(CudaStream& stream, const AttentionBackwardArgs& args,
                          const typename P::C* deltas, bool pack_rows, bool pack_kv) {
  using Block = AttentionBlock<T, P>;
  const AttentionArgs& a = args.forward;
  constexpr size_t kBytes = 2 * Block::kTileBytes + 2 * Block::kOtherBytes + 2 * Block::kScoreBytes;
  const int64_t units = a.batch * a.heads, tiles = (a.queries + Block::kRows - 1) / Block::kRows;
  if (tiles == 0) return;
  ADAGATE_ALLOW_SHARED((attention_backward_queries<T, P>), kBytes);
  ADAGATE_LAUNCH((attention_backward_queries<T, P>), static_cast<unsigned>(units * tiles),
                 Block::kThreads, kBytes, stream, args, deltas, units, pack_rows, pack_kv);
}

template <class T, int kDim>
void make_gradients(CudaStream& stream, const AttentionBackwardArgs& args) {
  using P = ProductsOf<T, kDim>;
  using C = typename P::C;
  const AttentionArgs& a = args.forward;
  const bool pack_rows = rows_pack(a.q, a) && rows_pack(args.doutput, a);
  const bool pack_kv = rows_pack(a.k, a) && rows_pack(a.v, a);
  const Scratch<C> deltas(stream, std::max<int64_t>(1, a.batch * a.heads * a.queries));
  attention_deltas(stream, args, deltas.data());
  if (args.dq.data) make_query_gradients<T, P>(stream, args, deltas.data(), pack_rows, pack_kv);
  auto keys = [&]<KeyGradients kWanted>() {
    make_key_gradients<T, P, kWanted>(stream, args, deltas.data(), pack_rows, pack_kv);
  };
  if constexpr (kDim <= 128) {
    if (args.dk.data || args.dv.data) keys.template operator()<KeyGradients::both>();
  } else {
    if (args.dk.data) keys.template operator()<KeyGradients::dk>();
    if (args.dv.data) keys.template operator()<KeyGradients::dv>();
  }
}

}  // namespace
}  // namespace cuda

void launch(CudaStream& stream, const AttentionBackwardArgs& args) {
  const AttentionArgs& a = args.forward;
  if (a.batch == 0 || a.heads == 0) return;
  if (a.head_dim > cuda::kMostHeadDim) {
    cuda::attend_backward_row_by_row(stream, args);
    return;
  }
  visit_floating(a.dtype, [&](auto type) {
    cuda::visit_head_dim(
        a.head_dim, [&]<int kDim>() { cuda::make_gradients<decltype(type), kDim>(stream, args); });
  });
}

}  // namespace adagate
