// Every op of the project, one entry each; tests/core/test_op_cases.cpp runs over the list.
#pragma once

#include "tests/support/op_cases_attention.h"
#include "tests/support/op_cases_moe.h"
#include "tests/support/op_cases_products.h"
#include "tests/support/op_cases_rows.h"

namespace adagate::test {

inline std::vector<OpCase> op_cases() {
  std::vector<OpCase> all;
  for (auto cases : {product_cases(), moe_cases(), norm_cases(), row_cases(), attention_cases(),
                     cross_attention_cases()})
    all.insert(all.end(), cases.begin(), cases.end());
  return all;
}

}  // namespace adagate::test
