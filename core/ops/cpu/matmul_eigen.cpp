// Matrix products through Eigen: always there, and the only one for f64.
#if defined(__GNUC__) && !defined(__clang__)
// g++ 12 takes its own _mm256_undefined_pd for a mistake when it inlines Eigen's reductions.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <Eigen/Core>

#include "core/base/threads.h"
#include "core/ops/cpu/matmul_backend.h"

namespace adagate::cpu {
namespace {

template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using ConstMap = Eigen::Map<const Matrix<T>, 0, Eigen::OuterStride<>>;

template <class T>
void run(const MatmulArgs& p) {
  ConstMap<T> a(static_cast<const T*>(p.a), p.trans_a ? p.k : p.m, p.trans_a ? p.m : p.k,
                Eigen::OuterStride<>(p.lda));
  ConstMap<T> b(static_cast<const T*>(p.b), p.trans_b ? p.n : p.k, p.trans_b ? p.k : p.n,
                Eigen::OuterStride<>(p.ldb));
  Eigen::Map<Matrix<T>, 0, Eigen::OuterStride<>> c(static_cast<T*>(p.c), p.m, p.n,
                                                   Eigen::OuterStride<>(p.ldc));
  auto store = [&](const auto& product) {
    if (p.accumulate) {
      c.noalias() += product;
    } else {
      c.noalias() = product;
    }
  };
  if (p.trans_a && p.trans_b) {
    store(a.transpose() * b.transpose());
  } else if (p.trans_a) {
    store(a.transpose() * b);
  } else if (p.trans_b) {
    store(a * b.transpose());
  } else {
    store(a * b);
  }
}

}  // namespace

void eigen_matmul(const MatmulArgs& p) {
  LibraryThreads threads(threads_for_product(p.m, p.n, p.k));
  if (p.c_type == DType::f64) {
    run<double>(p);
  } else {
    run<float>(p);
  }
}

}  // namespace adagate::cpu
