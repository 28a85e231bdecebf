// Who shares work among threads, and who does better alone.
#include "core/base/threads.h"
#include "tests/support/catch.h"

using namespace adagate;

#ifdef _OPENMP
TEST_CASE("threads: small work stays on one, large work gets all") {
  const LibraryThreads three(3);
  CHECK(threads_for(0) == 1);
  CHECK(threads_for(4096) == 1);  // a row of a large model
  CHECK(threads_for(1 << 20) == 3);
  CHECK(threads_for_product(1, 512, 128) == 1);    // a token of a small model
  CHECK(threads_for_product(1, 4096, 1024) == 3);  // its weights are read by all
  CHECK(threads_for_product(1024, 128, 128) == 3);
  CHECK(threads_for_product(128, 64, 64) == 1);
}

TEST_CASE("threads: within a parallel region everybody is alone") {
  int most = 0, libraries = 0;
#pragma omp parallel num_threads(2) reduction(max : most, libraries)
  {
    most = threads_for(1 << 30);
    const LibraryThreads limited(most);
    libraries = omp_get_max_threads();
  }
  CHECK(most == 1);
  CHECK(libraries == 1);
}

TEST_CASE("threads: libraries are told for a scope") {
  int before = omp_get_max_threads();
  {
    const LibraryThreads five(5);
    CHECK(omp_get_max_threads() == 5);
  }
  CHECK(omp_get_max_threads() == before);
}
#endif
