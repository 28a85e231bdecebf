// Counter-based random numbers: every draw has an address, so the same draw comes out on 1 or 8
// ranks, with any number of threads, and after a resume. Philox 4x32-10 (Salmon et al., SC 2011).
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

#include "core/base/hd.h"

namespace adagate {

// One purpose of randomness each; two purposes never share draws.
enum class RngStream : uint32_t { init, shuffle, dropout, routing, generate, test };

struct RngKey {
  uint32_t k0 = 0, k1 = 0;
};

ADAGATE_HD inline std::array<uint32_t, 4> philox(RngKey key, uint64_t counter_low,
                                                 uint64_t counter_high) {
  uint32_t c0 = static_cast<uint32_t>(counter_low), c1 = static_cast<uint32_t>(counter_low >> 32);
  uint32_t c2 = static_cast<uint32_t>(counter_high), c3 = static_cast<uint32_t>(counter_high >> 32);
  for (int round = 0; round < 10; ++round) {
    uint64_t p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
    uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ key.k0;
    uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ key.k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    key.k0 += 0x9E3779B9u;
    key.k1 += 0xBB67AE85u;
  }
  return {c0, c1, c2, c3};
}

// A finaliser that spreads 32 bits; used to derive the draws of one row from its key (vectorises).
ADAGATE_HD inline uint32_t mix32(uint32_t x) {
  x ^= x >> 16;
  x *= 0x21f0aaadu;
  x ^= x >> 15;
  x *= 0x735a2d97u;
  x ^= x >> 15;
  return x;
}

// Uniform in [0, 1) with 24 bits.
ADAGATE_HD inline float uniform_of(uint32_t bits) {
  return static_cast<float>(bits >> 8) * 0x1p-24f;
}

// A place in the program's randomness: (seed, stream, step, site). `site` tells apart the users of
// one stream in one step, e.g. the layer; the last coordinate, e.g. the global token id, goes into
// at().
class Rng {
 public:
  Rng() = default;
  ADAGATE_HD Rng(uint64_t seed, RngStream stream, uint64_t step = 0, uint64_t site = 0) {
    auto k = philox({static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
                    (static_cast<uint64_t>(stream) << 32) | (site & 0xffffffffu), step);
    key_ = {k[0] ^ k[2], k[1] ^ k[3]};
  }
  ADAGATE_HD std::array<uint32_t, 4> at(uint64_t index, uint64_t sub = 0) const {
    return philox(key_, index, sub);
  }
  ADAGATE_HD float uniform(uint64_t index, uint64_t sub = 0) const {
    return uniform_of(at(index, sub)[0]);
  }
  // Standard normal by Box-Muller.
  float normal(uint64_t index) const {
    auto r = at(index);
    double u = (r[0] + 1.0) * 0x1p-32, v = r[1] * 0x1p-32;
    return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v));
  }
  // Key of one row (token); element c of the row draws mix32(row_key + c * kRowStride).
  ADAGATE_HD uint32_t row_key(uint64_t row) const { return philox(key_, row, 0)[0]; }
  static constexpr uint32_t kRowStride = 0x9E3779B9u;

 private:
  RngKey key_;
};

// Stable 64-bit hash of a name (FNV-1a): gives each parameter its own site, whatever the layout.
constexpr uint64_t hash_name(std::string_view name) {
  uint64_t h = 0xcbf29ce484222325ull;
  for (char c : name) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return h;
}

}  // namespace adagate
