#include "core/ops/embedding.h"

#include "core/autograd/tape.h"

namespace adagate {
namespace {

void table_gradient(const Tensor& ids, const Tensor& dy, const Gradient& gradient) {
  GradDestination to = gradient.destination();
  if (!to) return;
  launch_on(dy.device(), EmbeddingBackwardArgs{.ids = ids.data<int32_t>(),
                                               .dy = dy.raw(),
                                               .dtable = to.tensor.raw(),
                                               .accumulate = to.accumulate,
                                               .n = ids.numel(),
                                               .cols = dy.cols(),
                                               .table_rows = to.tensor.rows(),
                                               .dtype = dy.dtype(),
                                               .dtable_dtype = to.tensor.dtype()});
}

}  // namespace

Tensor embedding(const Tensor& tokens, const Tensor& table, const Tensor& positions,
                 const Tensor& position_table) {
  check(table.shape().rank() == 2, "embedding: table is {}, [V, D] expected", table.shape());
  check(static_cast<bool>(positions) == static_cast<bool>(position_table),
        "embedding: positions and their table go together");
  if (positions) {
    check(positions.numel() == tokens.numel(), "embedding: {} tokens, {} positions", tokens.numel(),
          positions.numel());
    check(position_table.cols() == table.cols() && position_table.dtype() == table.dtype(),
          "embedding: the table is {} {}, that of positions {} {}", name_of(table.dtype()),
          table.shape(), name_of(position_table.dtype()), position_table.shape());
  }
  const int64_t n = tokens.numel();
  Tensor y = Tensor::empty({n, table.cols()}, table.dtype(), table.device());
  launch_on(table.device(), EmbeddingArgs{.tokens = tokens.data<int32_t>(),
                                          .table = table.raw(),
                                          .positions = positions.data<int32_t>(),
                                          .position_table = position_table.raw(),
                                          .y = y.raw(),
                                          .n = n,
                                          .cols = table.cols(),
                                          .vocabulary = table.dim(0),
                                          .context = positions ? position_table.dim(0) : 0,
                                          .dtype = table.dtype()});
  if (!tape_needs({&table, &position_table})) return y;
  return record("embedding", y,
                [tokens, positions, dtable = Gradient(table),
                 dpositions = Gradient(position_table)](const Tensor& dy) {
                  table_gradient(tokens, dy, dtable);
                  table_gradient(positions, dy, dpositions);
                });
}

}  // namespace adagate
