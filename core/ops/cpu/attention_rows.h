// Attention of a few queries, row by row.
#pragma once

#include "core/ops/attention.h"

namespace adagate {

// Few queries without gradient or dropout: packing keys and values into tiles would cost more than
// the products.
bool goes_row_by_row(const AttentionArgs& args);
void attend_row_by_row(const AttentionArgs& args);

}  // namespace adagate
