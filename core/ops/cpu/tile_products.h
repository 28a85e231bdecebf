// Products of experts in bf16 on matrix tiles, for which libraries have no good form: the number of
// rows is another one each time and often small.
#pragma once

#include "core/ops/matmul.h"

namespace adagate::cpu {

// False when the product is none of those below, or there are no tiles here. Runs on this thread
// alone. Wants m, n, k > 0 and leading dimensions filled in.
//   weight gradient: c f32 [m, n] (+)= a^T b, a [k, m] and b [k, n] bf16
//   input gradient:  c bf16 or f32 [m, n] (+)= a b^T, a [m, k] and b [n, k] bf16, of at most 128
//                    rows; n and k multiples of 32
bool tile_product(const MatmulArgs& p);

}  // namespace adagate::cpu
