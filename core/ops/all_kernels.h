// Every kernel of adagate: what a backend has to offer, and what its tests go through.
#pragma once

#include "core/ops/adamw_update.h"
#include "core/ops/arrival_order.h"
#include "core/ops/attention.h"
#include "core/ops/balance_losses.h"
#include "core/ops/bias_activation.h"
#include "core/ops/column_sum.h"
#include "core/ops/dropout.h"
#include "core/ops/elementwise.h"
#include "core/ops/embedding.h"
#include "core/ops/grouped_linear.h"
#include "core/ops/kv_cache.h"
#include "core/ops/linear_cross_entropy.h"
#include "core/ops/matmul.h"
#include "core/ops/norm.h"
#include "core/ops/permute.h"
#include "core/ops/routing.h"
#include "core/tensor/tensor_kernels.h"

namespace adagate {

template <class... Args>
struct KernelList {
  static constexpr size_t kSize = sizeof...(Args);

  // Calls f.template operator()<Args>() for each kernel's arguments.
  template <class F>
  static void for_each(F&& f) {
    (f.template operator()<Args>(), ...);
  }
};

using AllKernels =
    KernelList<FillArgs, ConvertArgs, AccumulateArgs, MatmulArgs, GroupedMatmulArgs, ColumnSumArgs,
               ElementwiseArgs, SumArgs, BroadcastArgs, EmbeddingArgs, EmbeddingBackwardArgs,
               NormArgs, NormBackwardArgs, DropoutArgs, DropoutBackwardArgs, BiasActivationArgs,
               BiasActivationBackwardArgs, AttentionArgs, AttentionBackwardArgs, AppendKeysArgs,
               CopySequencesArgs, NextPositionsArgs, GateScoresArgs, SelectExpertsArgs,
               CompactSelectionArgs, RoutingWeightsArgs, RoutingBackwardArgs,
               GateProductBackwardArgs, RoutingSumsArgs, RoutingLossGradientsArgs, SortByExpertArgs,
               GatherRowsArgs, ScatterRowsArgs, SumRowsArgs, CombineBackwardArgs, ArrivalOrderArgs,
               CrossEntropyArgs, LossSumArgs, AdamWArgs, SumOfSquaresArgs>;

}  // namespace adagate
