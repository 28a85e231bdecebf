// What holds for every op in the list.
#include "tests/support/op_case_checks.h"
#include "tests/support/op_cases.h"

using namespace adagate;
using namespace adagate::test;

TEST_CASE("Gradients of every op agree with finite differences") {
  for (const OpCase& op : op_cases()) check_case_gradients(op);
}

TEST_CASE("Every op in f32 and bf16 agrees with f64") {
  for (const OpCase& op : op_cases()) check_case_types(op);
}

TEST_CASE("Every op adds to gradients that are already there") {
  for (const OpCase& op : op_cases()) check_case_accumulation(op);
}
