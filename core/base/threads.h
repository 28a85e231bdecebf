// OpenMP's thread counts, also in builds without OpenMP.
#pragma once

#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace adagate {

// Threads that a parallel region opened here would get: 1 inside another region.
inline int max_threads() {
#ifdef _OPENMP
  return omp_in_parallel() ? 1 : omp_get_max_threads();
#else
  return 1;
#endif
}

// Threads for work that reads or writes so many numbers, each with a few operations: all of them,
// or one where it would be done about as soon as the others, asleep, have begun. Never a number
// between: libgomp ends the threads that a smaller team leaves over, and starts them anew for the
// next.
inline int threads_for(int64_t numbers) {
  constexpr int64_t kWorthWaking = 1 << 17;  // some 40 us on one thread; waking takes as long
  return numbers > kWorthWaking ? max_threads() : 1;
}

// The same for a product of m x k by k x n: a number of a matrix takes a quarter of the time above,
// a multiplication a sixteenth.
inline int threads_for_product(int64_t m, int64_t n, int64_t k) {
  return threads_for((m * k + k * n + m * n) / 4 + m * n * k / 16);
}

// Tells libraries called from here how many threads to take: they size their work by
// omp_get_max_threads(), which doesn't know that a region within another stays alone.
class LibraryThreads {
 public:
#ifdef _OPENMP
  explicit LibraryThreads(int threads) : before_(omp_get_max_threads()), now_(threads) {
    if (now_ != before_) omp_set_num_threads(now_);
  }
  ~LibraryThreads() {
    if (now_ != before_) omp_set_num_threads(before_);
  }
#else
  explicit LibraryThreads(int) {}
#endif
  LibraryThreads(const LibraryThreads&) = delete;
  LibraryThreads& operator=(const LibraryThreads&) = delete;

#ifdef _OPENMP
 private:
  int before_, now_;
#endif
};

}  // namespace adagate
