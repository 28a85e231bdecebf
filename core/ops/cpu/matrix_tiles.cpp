#include "core/ops/cpu/matrix_tiles.h"

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string_view>

#include "core/base/error.h"

#if ADAGATE_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace adagate {
namespace {

#if ADAGATE_AMX
// The processor has tiles with bf16 products, the system saves them at a change of threads, and
// this process may use them: Linux gives their large state to those who ask.
bool amx_is_there() {
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;          // of leaf 7, edx
  constexpr unsigned kSavesState = 1u << 27;                      // of leaf 1, ecx: OSXSAVE
  constexpr unsigned kTileState = 3u << 17;                       // of XCR0: layout and data
  constexpr long kRequestPermission = 0x1023, kTileDataBit = 18;  // arch_prctl(2)
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & kSavesState)) return false;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  if ((d & (kBf16 | kTile)) != (kBf16 | kTile)) return false;
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & kTileState) != kTileState) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileDataBit) == 0;
}
#else
bool amx_is_there() {
  return false;
}
#endif

MatrixTiles find_tiles() {
  const char* wanted = std::getenv("ADAGATE_AMX");
  if (wanted && std::string_view(wanted) == "0") return MatrixTiles::none;
  return amx_is_there() ? MatrixTiles::amx : MatrixTiles::none;
}

std::atomic<MatrixTiles>& chosen_tiles() {
  static std::atomic<MatrixTiles> tiles{find_tiles()};
  return tiles;
}

}  // namespace

MatrixTiles matrix_tiles() {
  return chosen_tiles().load(std::memory_order_relaxed);
}

void use_matrix_tiles(MatrixTiles tiles) {
  check(tiles != MatrixTiles::amx || amx_is_there(), "this processor or system has no AMX");
  chosen_tiles().store(tiles);
}

#if ADAGATE_BF16_PRODUCTS
namespace {

thread_local float t_sums[4][256];
thread_local uint32_t t_operands[4][256];
thread_local bool t_active = false;

}  // namespace

EmulatedTiles::Session::Session() {
  check(!active(), "matrix tiles: a session is open on this thread already");
  active() = true;
  for (auto& sum : t_sums) std::fill_n(sum, 256, std::numeric_limits<float>::quiet_NaN());
}

bool& EmulatedTiles::active() {
  return t_active;
}
void EmulatedTiles::check_session() {
  check(t_active, "matrix tiles: used without a session");
}
float* EmulatedTiles::sum(int left, int right) {
  return t_sums[2 * left + right];
}
uint32_t* EmulatedTiles::operand(int i) {
  return t_operands[i];
}

void EmulatedTiles::multiply(const uint32_t* left, const uint32_t* right, float* sum) {
  for (int row = 0; row < 16; ++row)
    for (int pair = 0; pair < 16; ++pair) {
      const uint32_t a = left[16 * row + pair];
      const float low = std::bit_cast<float>(a << 16), high = std::bit_cast<float>(a & 0xffff0000u);
      for (int col = 0; col < 16; ++col) {
        const uint32_t b = right[16 * pair + col];
        float& to = sum[16 * row + col];
        to = std::fma(low, std::bit_cast<float>(b << 16), to);
        to = std::fma(high, std::bit_cast<float>(b & 0xffff0000u), to);
      }
    }
}
#endif

}  // namespace adagate
