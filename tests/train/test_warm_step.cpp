// What a warm step may ask of the machine when its sizes vary, as adaptive gating makes them: no
// memory from the system, no more of it in use than a formula says, and few heap allocations.
// test_step_cost.cpp counts the blocks of a step that is always the same.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>

#include "core/device/allocator.h"
#include "tests/support/catch.h"
#include "tests/support/fixed_step.h"
#include "tests/support/one_thread.h"

namespace {
std::atomic<int64_t> g_heap_allocations{0};
}  // namespace

// The sanitizers have operators of their own, which must not be mixed with these.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
namespace {

void* counted_allocation(std::size_t bytes, std::size_t alignment) {
  g_heap_allocations.fetch_add(1, std::memory_order_relaxed);
  bytes = (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  void* block = alignment <= alignof(std::max_align_t) ? std::malloc(bytes)
                                                       : std::aligned_alloc(alignment, bytes);
  if (!block) throw std::bad_alloc();
  return block;
}
}  // namespace

// The other forms of new and delete end in these.
void* operator new(std::size_t bytes) {
  return counted_allocation(bytes, 1);
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return counted_allocation(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* block) noexcept {
  std::free(block);
}
void operator delete(void* block, std::size_t) noexcept {
  std::free(block);
}
void operator delete(void* block, std::align_val_t) noexcept {
  std::free(block);
}
void operator delete(void* block, std::size_t, std::align_val_t) noexcept {
  std::free(block);
}
#endif

using namespace adagate;
using fixed_step::Sizes;

namespace {

struct StepCost {
  int64_t system_calls, heap, peak_bytes, assignments;
};

StepCost cost_of(fixed_step::Trainer& trainer, const Batch& batch) {
  reset_peak_memory();
  AllocatorStats before = allocator_stats();
  int64_t heap = g_heap_allocations.load();
  trainer.run(batch, 0.01);
  heap = g_heap_allocations.load() - heap;
  AllocatorStats after = allocator_stats();
  return {after.system_calls - before.system_calls, heap,
          after.peak_bytes_in_use - before.bytes_in_use, trainer.assignments()};
}

// Most bytes that a step may need besides parameters, gradients and optimizer state: what backward
// keeps of T tokens, of the rows A given to experts in all layers together, and the logits of one
// chunk with the gradient of the hidden states.
double most_bytes(const Sizes& s, int64_t assignments) {
  ModelConfig model = s.model();
  int64_t t = s.batch * s.sequence, d = s.width, f = model.feed_forward_width();
  // Two norms' outputs, q, k, v, attention's output, two residual sums; four statistics of norms
  // and one per head. Dense blocks add the hidden layer before and after its activation.
  int64_t block = t * (8 * d + 4 + s.heads) + (s.experts ? 0 : 2 * t * f);
  // Gate: probabilities, log-sum-exp, entropy, first row of each token.
  if (s.experts) block += t * (s.experts + 3);
  // Of each row: input, output, hidden layer twice, weight, expert, row and token.
  int64_t rows = assignments * (2 * d + 2 * f + 4);
  int64_t ends =
      t * (4 * d + (s.vocabulary + 15) / 16 * 16);  // embedding, last norm, dx, x, logits
  int64_t inputs = t * 5;                           // ids, targets, i64 row ids, mask
  double size_classes = 9.0 / 8;                    // of the allocator
  return 4.0 * size_classes * static_cast<double>(s.layers * block + rows + ends + inputs);
}

void expect_cheap_steps(const Sizes& sizes, int64_t most_heap) {
  OneThread one;
  trim_allocator();  // whatever the tests before left
  fixed_step::Trainer trainer(sizes);
  // To warm up, the largest sizes (full samples), then other batches than those below: the blocks
  // settle in some ten steps, since a small request may take the block of a larger one.
  for (int64_t i = 0; i < 24; ++i) {
    Sizes warm = sizes;
    if (i < 4) warm.padded = false;
    trainer.run(fixed_step::make_up_batch(warm, 100 + i), 0.01);
  }

  int64_t least_rows = INT64_MAX, most_rows = 0, least_heap = INT64_MAX;
  for (int64_t i = 0; i < 12; ++i) {
    StepCost cost = cost_of(trainer, fixed_step::make_up_batch(sizes, i));
    INFO("step " << i << " with " << cost.assignments << " rows at experts");
    CHECK(cost.system_calls == 0);
    least_rows = std::min(least_rows, cost.assignments);
    most_rows = std::max(most_rows, cost.assignments);
    least_heap = std::min(least_heap, cost.heap);
  }
  if (sizes.experts) CHECK(most_rows > least_rows);  // else this shows nothing
  // The least: oneDNN allocates much when a number of rows comes for the first time.
  CHECK(least_heap <= most_heap);

  trim_allocator();  // blocks of exactly the sizes asked for
  StepCost cost = cost_of(trainer, fixed_step::make_up_batch(sizes, 0));
  INFO("for " << cost.assignments << " rows at experts");
  CHECK(static_cast<double>(cost.peak_bytes) <= most_bytes(sizes, cost.assignments));
}

}  // namespace

// The bounds of heap allocations are what is measured plus 20 %. Most of those with experts are
// oneDNN's, which describes each product anew.

TEST_CASE("a warm dense step asks for no memory and allocates little", "[step_cost]") {
  expect_cheap_steps({}, 474);
}

TEST_CASE("a warm step with adaptive gating asks for no memory and allocates little",
          "[step_cost]") {
  for (double threshold : {-1.0, 0.1, 1.0}) {
    INFO("threshold " << threshold);
    expect_cheap_steps({.experts = 8, .threshold = threshold, .padded = true}, 1800);
  }
}
