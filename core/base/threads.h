// OpenMP's thread counts, also in builds without OpenMP.
#pragma once

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

// Inside a parallel region, tells libraries called from here that they are on their own: they size
// their work by omp_get_max_threads(), which doesn't know that a nested region stays alone.
class NestedThreads {
 public:
#ifdef _OPENMP
  NestedThreads() : nested_(omp_in_parallel() != 0), before_(omp_get_max_threads()) {
    if (nested_) omp_set_num_threads(1);
  }
  ~NestedThreads() {
    if (nested_) omp_set_num_threads(before_);
  }
#else
  NestedThreads() {}
#endif
  NestedThreads(const NestedThreads&) = delete;
  NestedThreads& operator=(const NestedThreads&) = delete;

#ifdef _OPENMP
 private:
  bool nested_;
  int before_;
#endif
};

}  // namespace adagate
