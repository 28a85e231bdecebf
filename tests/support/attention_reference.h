// Attention by the textbook formula, with a matrix [queries, keys] of scores.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <vector>

#include "core/ops/attention.h"

namespace adagate::test {

// Element d of one head's vector, rotated by its position as a complex number (x[i], x[i + half]).
// The angle is an f32 number, as in Transformers.
inline double rotated(const double* x, int64_t d, int64_t position, const AttentionShape& s) {
  if (s.rotary_base == 0) return x[d];
  const int64_t half = s.head_dim / 2, i = d % half;
  const float exponent = static_cast<float>(2 * i) / static_cast<float>(s.head_dim);
  const auto wavelength = static_cast<float>(std::pow(s.rotary_base, exponent));
  const double angle = static_cast<float>(position) * (1 / wavelength);
  const auto z = std::complex<double>(x[i], x[i + half]) * std::polar(1.0, angle);
  return d < half ? z.real() : z.imag();
}

// What attention() takes; the tensors are f64.
struct AttentionProblem {
  AttentionShape shape;
  HeadColumns q, k, v;
  AttentionRows rows;
  DropoutSite site;
  Tensor ids;

  int64_t keys() const { return k.rows.rows() / shape.batch; }
};

// The factors of the keys [0, seen) for the query at row t of one sample and head.
inline std::vector<double> plain_weights(const AttentionProblem& p, int64_t sample, int64_t head,
                                         int64_t t, int64_t start, int64_t seen) {
  const AttentionShape& s = p.shape;
  const double scale = s.scale != 0 ? s.scale : 1 / std::sqrt(static_cast<double>(s.head_dim));
  const int64_t kv = head / (s.heads / s.kv_heads);
  const double* q = p.q.rows.data<double>() + (sample * s.sequence + t) * p.q.rows.cols() +
                    p.q.first + head * s.head_dim;
  std::vector<double> weight(static_cast<size_t>(seen));
  for (int64_t n = 0; n < seen; ++n) {
    const double* k = p.k.rows.data<double>() + (sample * p.keys() + n) * p.k.rows.cols() +
                      p.k.first + kv * s.head_dim;
    double score = 0;
    for (int64_t d = 0; d < s.head_dim; ++d)
      score += rotated(q, d, start + t, s) * rotated(k, d, n, s);
    weight[static_cast<size_t>(n)] = scale * score;
  }
  const double largest = *std::max_element(weight.begin(), weight.end());
  double sum = 0;
  for (double& w : weight) sum += w = std::exp(w - largest);
  for (double& w : weight) w /= sum;
  if (!p.site.active()) return weight;
  const DropoutMask mask(p.site.probability);
  const auto id = static_cast<uint64_t>(p.ids.data<int64_t>()[sample * s.sequence + t]);
  const uint32_t key = attention_row_key(p.site.rng.row_key(id), static_cast<uint32_t>(head));
  for (int64_t n = 0; n < seen; ++n)
    weight[static_cast<size_t>(n)] *= mask.factor(key, static_cast<uint32_t>(n));
  return weight;
}

// [batch * sequence, H * Dh], f64
inline Tensor plain_attention(const AttentionProblem& p) {
  const AttentionShape& s = p.shape;
  auto of_sample = [](const Tensor& t, int64_t b, int64_t otherwise) {
    return t ? int64_t{t.data<int32_t>()[b]} : otherwise;
  };
  Tensor out = Tensor::zeros({s.batch * s.sequence, s.heads * s.head_dim}, DType::f64);
  for (int64_t b = 0; b < s.batch; ++b) {
    const int64_t start = of_sample(p.rows.starts, b, 0);
    const int64_t there = of_sample(p.rows.keys, b, p.keys());
    const int64_t queries = there > 0 ? of_sample(p.rows.queries, b, s.sequence) : 0;
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t kv = h / (s.heads / s.kv_heads);
      for (int64_t t = 0; t < queries; ++t) {
        const int64_t seen = s.causal ? std::min(there, start + t + 1) : there;
        const auto weight = plain_weights(p, b, h, t, start, seen);
        double* y =
            out.data<double>() + (b * s.sequence + t) * s.heads * s.head_dim + h * s.head_dim;
        for (int64_t n = 0; n < seen; ++n) {
          const double* v = p.v.rows.data<double>() + (b * p.keys() + n) * p.v.rows.cols() +
                            p.v.first + kv * s.head_dim;
          for (int64_t d = 0; d < s.head_dim; ++d) y[d] += weight[static_cast<size_t>(n)] * v[d];
        }
      }
    }
  }
  return out;
}

}  // namespace adagate::test
