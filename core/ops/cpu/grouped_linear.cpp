// The products of all groups are cut into tasks of similar work, each done by one thread: a product
// of 64 rows on one thread runs at nearly the rate of a large one, whereas threads inside small
// products wait for each other. Large groups are cut by rows (weights: by rows of the result), so
// that skewed routing fills all threads too. Each task reads its rows and its group's weights once.
#include "core/ops/grouped_linear.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <vector>

#include "core/base/threads.h"
#include "core/ops/cpu/tile_products.h"
#include "core/ops/matmul.h"

namespace adagate {
namespace {

using Kind = GroupedMatmulArgs::Kind;

// Of group g: rows [begin, end) of a and c, or (weights) rows [begin, end) of c[g].
struct Task {
  int64_t group, begin, end, work;
};

constexpr int64_t kFewestRows = 64, kMostRows = 256;
constexpr int64_t kTasksPerThread = 4;

// [begin, end) in `parts` pieces whose sizes are multiples of 16 but for the last.
void cut(std::vector<Task>& tasks, int64_t group, int64_t begin, int64_t end, int64_t parts,
         int64_t work_per_row) {
  int64_t size = (end - begin + parts - 1) / parts;
  size = (size + 15) / 16 * 16;
  for (int64_t at = begin; at < end; at += size) {
    int64_t stop = std::min(at + size, end);
    tasks.push_back({group, at, stop, (stop - at) * work_per_row});
  }
}

std::vector<Task> make_tasks(const GroupedMatmulArgs& p, int threads) {
  std::vector<Task> tasks;
  tasks.reserve(static_cast<size_t>(p.groups));
  int64_t total = p.offsets[p.groups] - p.offsets[0];
  int64_t target = std::clamp(total / (threads * kTasksPerThread), kFewestRows, kMostRows);
  for (int64_t g = 0; g < p.groups; ++g) {
    int64_t first = p.offsets[g], last = p.offsets[g + 1], rows = last - first;
    int64_t parts = threads > 1 ? std::max<int64_t>(1, (rows + target / 2) / target) : 1;
    if (p.kind == Kind::rows) {
      if (rows > 0) cut(tasks, g, first, last, parts, 1);
    } else {
      // Groups without rows still write (or keep) their result.
      int64_t most = std::max<int64_t>(1, p.k / kFewestRows);
      cut(tasks, g, 0, p.k, std::min(parts, most), std::max<int64_t>(rows, 1));
    }
  }
  // Largest first, so that the threads finish together.
  std::stable_sort(tasks.begin(), tasks.end(),
                   [](const Task& x, const Task& y) { return x.work > y.work; });
  return tasks;
}

const void* at(const void* base, int64_t element, DType type) {
  return base ? static_cast<const char*>(base) + element * static_cast<int64_t>(size_of(type))
              : nullptr;
}

MatmulArgs product(const GroupedMatmulArgs& p, const Task& task) {
  MatmulArgs q{.n = p.m,
               .a_type = p.a_type,
               .b_type = p.b_type,
               .c_type = p.c_type,
               .bias_type = p.bias_type,
               .accumulate = p.accumulate};
  int64_t rows = task.end - task.begin, first;
  if (p.kind == Kind::rows) {
    q.m = rows;
    q.k = p.k;
    q.a = at(p.a, task.begin * p.k, p.a_type);
    q.b = at(p.b, task.group * p.k * p.m, p.b_type);
    q.trans_b = p.trans_b;
    q.bias = at(p.bias, task.group * p.m, p.bias_type);
    first = task.begin;
  } else {
    int64_t begin = p.offsets[task.group];
    q.m = rows;
    q.k = p.offsets[task.group + 1] - begin;
    q.trans_a = true;
    q.lda = p.k;
    q.a = at(p.a, begin * p.k + task.begin, p.a_type);
    q.b = at(p.b, begin * p.m, p.b_type);
    first = task.group * p.k + task.begin;
  }
  q.c = const_cast<void*>(at(p.c, first * p.m, p.c_type));
  return q;
}

// A task, on this thread alone.
void run(CpuStream& stream, MatmulArgs p) {
  if (!p.lda) p.lda = p.trans_a ? p.m : p.k;
  p.ldb = p.trans_b ? p.k : p.n;
  p.ldc = p.n;
  if (p.m == 0 || p.n == 0 || p.k == 0 || !cpu::tile_product(p)) launch(stream, p);
}

}  // namespace

void launch(CpuStream& stream, const GroupedMatmulArgs& p) {
  if (p.groups == 1) {
    Task whole{0, 0, p.kind == Kind::rows ? p.offsets[1] : p.k, 0};
    launch(stream, product(p, whole));
    return;
  }
  int threads = threads_for_product(p.offsets[p.groups] - p.offsets[0], p.m, p.k);
  auto tasks = make_tasks(p, threads);
  auto count = static_cast<int64_t>(tasks.size());
  std::exception_ptr failure;  // exceptions must not leave the parallel region
  std::mutex failure_mutex;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (int64_t i = 0; i < count; ++i) {
    try {
      run(stream, product(p, tasks[static_cast<size_t>(i)]));
    } catch (...) {
      std::lock_guard lock(failure_mutex);
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace adagate
