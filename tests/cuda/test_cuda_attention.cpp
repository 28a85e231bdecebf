// Attention on the CUDA backend against the CPU's, in forms that the ops' cases leave out: heads of
// all sizes that kernels are made for and beyond, rows on odd addresses, many keys in several tiles
// and spans, cached keys, and few queries without gradient.
#include "core/ops/attention.h"
#include "tests/cuda/gpu.h"
#include "tests/support/catch.h"
#include "tests/support/gradient_check.h"
#include "tests/support/op_cases_rows.h"

using namespace adagate;
using namespace adagate::test;

namespace {

struct Form {
  int64_t batch, queries, keys, heads, kv_heads, head_dim;
  bool causal = true;
  double rotary = 0, dropout = 0;
  bool lengths = false;  // of queries from none to all, of keys from all to none
  bool starts = false;   // of queries from 0 to as late as there are keys
  bool rotate_keys = true;
  int64_t apart = 0;  // columns beside the heads'
  bool gradient = true;
};

// What a form's numbers stand in: keys and values beside each other.
struct Inputs {
  Tensor q, kv, output, dout, dq, dkv, lse;
  AttentionRows rows;
  Tensor addresses;
};

Tensor matrix(int64_t rows, int64_t cols, uint64_t salt, DType type, Device device) {
  return random_normal({rows, cols}, salt).to(type).to(device);
}

AttentionRows rows_of(const Form& f, Device device) {
  const int64_t last = std::max<int64_t>(1, f.batch - 1);
  std::vector<int32_t> queries, keys, starts;
  for (int64_t b = 0; b < f.batch; ++b) {
    queries.push_back(static_cast<int32_t>(f.queries * b / last));
    keys.push_back(static_cast<int32_t>(f.keys * (f.batch - 1 - b) / last));
    starts.push_back(static_cast<int32_t>((f.keys - f.queries) * b / last));
  }
  auto tensor = [&](const std::vector<int32_t>& values) {
    return Tensor::from(std::span<const int32_t>(values), {f.batch}, device);
  };
  AttentionRows rows;
  if (f.lengths) rows.queries = tensor(queries);
  if (f.lengths) rows.keys = tensor(keys);
  if (f.starts) rows.starts = tensor(starts);
  return rows;
}

Inputs inputs_of(const Form& f, DType type, Device device) {
  const int64_t q_cols = f.heads * f.head_dim, kv_cols = 2 * f.kv_heads * f.head_dim;
  const int64_t q_rows = f.batch * f.queries, kv_rows = f.batch * f.keys;
  return {.q = matrix(q_rows, q_cols + f.apart, 1, type, device),
          .kv = matrix(kv_rows, kv_cols + f.apart, 2, type, device),
          .output = matrix(q_rows, q_cols, 3, type, device),
          .dout = matrix(q_rows, q_cols, 4, type, device),
          .dq = matrix(q_rows, q_cols + f.apart, 5, type, device),
          .dkv = matrix(kv_rows, kv_cols + f.apart, 6, type, device),
          .lse = matrix(q_rows, f.heads, 7, compute_dtype(type), device),
          .rows = rows_of(f, device),
          .addresses = token_addresses(q_rows, device)};
}

AttentionArgs arguments(const Form& f, const Inputs& in, DType type, Device device) {
  const AttentionShape shape{.batch = f.batch,
                             .sequence = f.queries,
                             .heads = f.heads,
                             .kv_heads = f.kv_heads,
                             .head_dim = f.head_dim,
                             .causal = f.causal,
                             .rotary_base = f.rotary};
  AttentionArgs args =
      attention_args({in.q}, {in.kv}, {in.kv, f.kv_heads * f.head_dim}, in.output, f.keys, shape,
                     in.rows, attention_rotary(shape, f.keys, type, device));
  args.rotate_keys = f.rotate_keys;
  if (f.gradient) args.lse = in.lse.raw();
  if (f.dropout > 0) {
    args.addresses = in.addresses.data<int64_t>();
    args.rng = dropout_site(f.dropout).rng;
    args.mask = DropoutMask(f.dropout);
  }
  return args;
}

// The output, its statistics, the gradients: whole tensors, with what is between the columns.
std::vector<Tensor> attended(const Form& f, DType type, bool accumulate, Device device) {
  const Inputs in = inputs_of(f, type, device);
  const AttentionArgs args = arguments(f, in, type, device);
  launch_on(device, args);
  std::vector<Tensor> results{in.output.to(Device{})};
  if (!f.gradient) return results;
  results.push_back(in.lse.to(Device{}));
  launch_on(device,
            AttentionBackwardArgs{.forward = args,
                                  .doutput = heads_view({in.dout}, f.batch),
                                  .dq = heads_view({in.dq}, f.batch),
                                  .dk = heads_view({in.dkv}, f.batch),
                                  .dv = heads_view({in.dkv, f.kv_heads * f.head_dim}, f.batch),
                                  .accumulate_dq = accumulate,
                                  .accumulate_dk = accumulate,
                                  .accumulate_dv = accumulate});
  results.push_back(in.dq.to(Device{}));
  results.push_back(in.dkv.to(Device{}));
  return results;
}

void check_form(const Form& f) {
  INFO(f.batch << " samples, " << f.queries << " queries, " << f.keys << " keys, " << f.heads << "/"
               << f.kv_heads << " heads of " << f.head_dim << ", causal " << f.causal
               << ", dropout " << f.dropout << ", rotary " << f.rotary);
  for (DType type : {DType::f64, DType::f32, DType::bf16})
    for (bool accumulate : {false, true}) {
      if (accumulate && !f.gradient) continue;
      INFO(name_of(type) << ", accumulate " << accumulate);
      const double tolerance = type == DType::f64 ? 1e-11 : type == DType::f32 ? 1e-5 : 2e-2;
      const auto expected = attended(f, type, accumulate, {});
      const auto got = attended(f, type, accumulate, gpu());
      for (size_t i = 0; i < got.size(); ++i) {
        INFO("result " << i);
        CHECK(relative_error(got[i], expected[i]) <= tolerance);
      }
    }
}

}  // namespace

TEST_CASE("CUDA attention: several tiles of queries and keys") {
  check_form({2, 70, 70, 2, 2, 4});
  check_form({.batch = 2,
              .queries = 90,
              .keys = 90,
              .heads = 4,
              .kv_heads = 2,
              .head_dim = 6,
              .rotary = 100,
              .dropout = 0.3,
              .lengths = true});
  check_form({.batch = 1,
              .queries = 130,
              .keys = 130,
              .heads = 1,
              .kv_heads = 1,
              .head_dim = 64,
              .rotary = 10000});
  check_form({.batch = 2,
              .queries = 33,
              .keys = 100,
              .heads = 2,
              .kv_heads = 1,
              .head_dim = 32,
              .rotary = 100,
              .dropout = 0.1,
              .lengths = true,
              .starts = true});
}

TEST_CASE("CUDA attention: keys that have been rotated, rows on odd addresses, no keys") {
  check_form({.batch = 2,
              .queries = 33,
              .keys = 100,
              .heads = 2,
              .kv_heads = 1,
              .head_dim = 32,
              .rotary = 100,
              .starts = true,
              .rotate_keys = false,
              .apart = 8});
  check_form({.batch = 1,
              .queries = 66,
              .keys = 40,
              .heads = 2,
              .kv_heads = 1,
              .head_dim = 96,
              .causal = false,
              .rotary = 100,
              .dropout = 0.1,
              .apart = 3});
  check_form({.batch = 2,
              .queries = 20,
              .keys = 0,
              .heads = 1,
              .kv_heads = 1,
              .head_dim = 8,
              .causal = false});
}

TEST_CASE("CUDA attention: wide heads") {
  check_form({.batch = 1, .queries = 40, .keys = 40, .heads = 2, .kv_heads = 1, .head_dim = 128});
  check_form({.batch = 1,
              .queries = 20,
              .keys = 70,
              .heads = 2,
              .kv_heads = 2,
              .head_dim = 160,
              .causal = false,
              .dropout = 0.1});
  check_form({.batch = 1,
              .queries = 70,
              .keys = 70,
              .heads = 2,
              .kv_heads = 1,
              .head_dim = 256,
              .rotary = 100});
}

TEST_CASE("CUDA attention: heads that go row by row") {
  check_form({.batch = 2,
              .queries = 10,
              .keys = 20,
              .heads = 2,
              .kv_heads = 1,
              .head_dim = 260,
              .rotary = 100,
              .dropout = 0.1,
              .lengths = true,
              .starts = true});
  check_form({.batch = 2,
              .queries = 10,
              .keys = 20,
              .heads = 2,
              .kv_heads = 1,
              .head_dim = 260,
              .causal = false,
              .lengths = true,
              .apart = 1});
}

TEST_CASE("CUDA attention: few queries without gradient, keys in several spans") {
  check_form({.batch = 2,
              .queries = 1,
              .keys = 1300,
              .heads = 4,
              .kv_heads = 2,
              .head_dim = 64,
              .rotary = 10000,
              .starts = true,
              .rotate_keys = false,
              .gradient = false});
  check_form({.batch = 3,
              .queries = 3,
              .keys = 700,
              .heads = 2,
              .kv_heads = 1,
              .head_dim = 40,
              .rotary = 10000,
              .lengths = true,
              .starts = true,
              .rotate_keys = false,
              .gradient = false});
  check_form({.batch = 1,
              .queries = 2,
              .keys = 9,
              .heads = 2,
              .kv_heads = 1,
              .head_dim = 5,
              .causal = false,
              .gradient = false});
}
