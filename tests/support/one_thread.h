// One OpenMP thread while it lives: scratch memory and oneDNN's primitives are per thread, so
// counts taken with one are the same on all machines.
#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif

class OneThread {
 public:
#ifdef _OPENMP
  OneThread() : before_(omp_get_max_threads()) {
    omp_set_num_threads(1);
  }
  ~OneThread() {
    omp_set_num_threads(before_);
  }

 private:
  int before_;
#endif
};
