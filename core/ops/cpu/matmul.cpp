// Chooses the library for a product, and converts operands for which none has a kernel: such
// products are rare (a full-precision gate on bf16 activations, bf16 on a processor without it), so
// the conversion is a plain pass into f32 copies.
#include <cstring>

#include "core/device/cpu_buffer.h"
#include "core/ops/cpu/matmul_backend.h"

namespace adagate {
namespace {

// rows x cols with row stride `ld` -> dense.
template <class To, class From>
void convert_rows(const From* from, int64_t ld, To* to, int64_t to_ld, int64_t rows, int64_t cols,
                  bool accumulate) {
#pragma omp parallel for schedule(static) if (rows * cols > (1 << 15))
  for (int64_t r = 0; r < rows; ++r) {
    const From* source = from + r * ld;
    To* target = to + r * to_ld;
    if (accumulate) {
#pragma omp simd
      for (int64_t c = 0; c < cols; ++c) {
        target[c] = static_cast<To>(static_cast<Compute<To>>(target[c]) +
                                    static_cast<Compute<To>>(source[c]));
      }
    } else {
#pragma omp simd
      for (int64_t c = 0; c < cols; ++c) {
        target[c] = static_cast<To>(static_cast<Compute<From>>(source[c]));
      }
    }
  }
}

void convert_rows(const void* from, DType from_type, int64_t ld, void* to, DType to_type,
                  int64_t to_ld, int64_t rows, int64_t cols, bool accumulate) {
  visit_floating(from_type, [&](auto f) {
    visit_floating(to_type, [&](auto t) {
      convert_rows(static_cast<const decltype(f)*>(from), ld, static_cast<decltype(t)*>(to), to_ld,
                   rows, cols, accumulate);
    });
  });
}

template <class T, class B>
void add_bias(T* c, int64_t ldc, const B* bias, int64_t rows, int64_t cols) {
#pragma omp parallel for schedule(static) if (rows * cols > (1 << 15))
  for (int64_t r = 0; r < rows; ++r) {
#pragma omp simd
    for (int64_t j = 0; j < cols; ++j) {
      c[r * ldc + j] = static_cast<T>(c[r * ldc + j] + static_cast<T>(bias[j]));
    }
  }
}

void run(CpuStream& stream, const MatmulArgs& p);

// The product in type `wide` on converted copies of the operands that have another type.
void run_converted(CpuStream& stream, const MatmulArgs& p, DType wide) {
  MatmulArgs q = p;
  q.bias = nullptr;
  int64_t a_rows = p.trans_a ? p.k : p.m, a_cols = p.trans_a ? p.m : p.k;
  int64_t b_rows = p.trans_b ? p.n : p.k, b_cols = p.trans_b ? p.k : p.n;
  size_t size = size_of(wide);
  CpuBuffer a(p.a_type == wide ? 0 : static_cast<size_t>(p.m * p.k) * size);
  CpuBuffer b(p.b_type == wide ? 0 : static_cast<size_t>(p.k * p.n) * size);
  CpuBuffer c(p.c_type == wide ? 0 : static_cast<size_t>(p.m * p.n) * size);
  if (p.a_type != wide) {
    convert_rows(p.a, p.a_type, p.lda, a.as(), wide, a_cols, a_rows, a_cols, false);
    q.a = a.as();
    q.lda = a_cols;
  }
  if (p.b_type != wide) {
    convert_rows(p.b, p.b_type, p.ldb, b.as(), wide, b_cols, b_rows, b_cols, false);
    q.b = b.as();
    q.ldb = b_cols;
  }
  if (p.c_type != wide) {
    q.c = c.as();
    q.ldc = p.n;
    q.accumulate = false;
  }
  q.a_type = q.b_type = q.c_type = wide;
  run(stream, q);
  if (p.bias) {
    visit_floating(wide, [&](auto t) {
      visit_floating(p.bias_type, [&](auto b) {
        add_bias(static_cast<decltype(t)*>(q.c), q.ldc, static_cast<const decltype(b)*>(p.bias),
                 p.m, p.n);
      });
    });
  }
  if (p.c_type != wide) {
    convert_rows(q.c, wide, q.ldc, p.c, p.c_type, p.ldc, p.m, p.n, p.accumulate);
  }
}

void run(CpuStream& stream, const MatmulArgs& p) {
  if (cpu::onednn_matmul(p)) return;
  DType wide = p.c_type == DType::f64 || p.a_type == DType::f64 || p.b_type == DType::f64
                   ? DType::f64
                   : DType::f32;
  if (p.bias || p.a_type != wide || p.b_type != wide || p.c_type != wide) {
    run_converted(stream, p, wide);
  } else {
    cpu::eigen_matmul(p);
  }
}

}  // namespace

void launch(CpuStream& stream, const MatmulArgs& args) {
  MatmulArgs p = args;
  if (!p.lda) p.lda = p.trans_a ? p.m : p.k;
  if (!p.ldb) p.ldb = p.trans_b ? p.k : p.n;
  if (!p.ldc) p.ldc = p.n;
  check(!p.bias || !p.accumulate, "matmul: a bias can't be added to an accumulated product");
  if (p.m == 0 || p.n == 0) return;
  if (p.k > 0) {
    run(stream, p);
    return;
  }
  // An empty sum: the bias alone.
  if (p.accumulate) return;
  for (int64_t r = 0; r < p.m; ++r) {
    auto* row = static_cast<char*>(p.c) + static_cast<size_t>(r * p.ldc) * size_of(p.c_type);
    if (p.bias) {
      convert_rows(p.bias, p.bias_type, p.n, row, p.c_type, p.n, 1, p.n, false);
    } else {
      std::memset(row, 0, static_cast<size_t>(p.n) * size_of(p.c_type));
    }
  }
}

}  // namespace adagate
