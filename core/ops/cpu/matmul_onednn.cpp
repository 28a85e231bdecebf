// Matrix products through oneDNN's matmul primitive. Creating one costs about 100 us, more than
// many products of a training step, so they are kept by shape, per thread: ranks may be threads and
// products run inside parallel regions, so nothing is shared and nothing is locked.
#include "core/ops/cpu/matmul_backend.h"

#ifdef ADAGATE_HAVE_ONEDNN
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "core/base/threads.h"
#include "core/device/cpu_buffer.h"

namespace adagate::cpu {
namespace {

using dnnl::memory;

// What a primitive is made for. A dimension that counts tokens is kRuntime: it changes from call to
// call (routed rows, last batches).
struct Key {
  int64_t m, n, k, lda, ldb, ldc;
  int32_t flags, threads;
  bool operator==(const Key&) const = default;
};
constexpr int64_t kRuntime = DNNL_RUNTIME_DIM_VAL;

struct KeyHash {
  size_t operator()(const Key& key) const {
    uint64_t h = 0x9E3779B97F4A7C15ull;
    for (int64_t v : {key.m, key.n, key.k, key.lda, key.ldb, key.ldc,
                      static_cast<int64_t>(key.flags) << 32 | key.threads}) {
      h = (h ^ static_cast<uint64_t>(v)) * 0xff51afd7ed558ccdull;
      h ^= h >> 32;
    }
    return h;
  }
};

memory::data_type type_of(DType t) {
  return t == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
}

memory::desc describe(int64_t rows, int64_t cols, DType type, bool transposed, int64_t ld) {
  memory::dims strides = transposed ? memory::dims{1, ld} : memory::dims{ld, 1};
  return memory::desc({rows, cols}, type_of(type), strides);
}

struct Descriptions {
  memory::desc a, b, c;
  Descriptions(const MatmulArgs& p, int64_t m, int64_t k)
      : a(describe(m, k, p.a_type, p.trans_a, p.lda)),
        b(describe(k, p.n, p.b_type, p.trans_b, p.ldb)),
        c(describe(m, p.n, p.c_type, false, p.ldc)) {}
};

const dnnl::engine& engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// Working memory of the products on this thread, the largest so far.
void* scratch_memory(size_t bytes) {
  thread_local std::unique_ptr<CpuBuffer> buffer;
  thread_local size_t size = 0;
  if (bytes > size) {
    size = 0;
    buffer.reset();
    buffer = std::make_unique<CpuBuffer>(bytes);
    size = bytes;
  }
  return buffer ? buffer->as() : nullptr;
}

class Product {
 public:
  Product(const MatmulArgs& p, const Key& key) {
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (p.accumulate) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attributes.set_post_ops(sum);
    }
    Descriptions d(p, key.m, key.k);
    memory::desc bias({1, p.n}, type_of(p.bias_type), memory::dims{p.n, 1});
    auto description =
        p.bias ? dnnl::matmul::desc(d.a, d.b, bias, d.c) : dnnl::matmul::desc(d.a, d.b, d.c);
    dnnl::matmul::primitive_desc chosen(description, attributes, engine());
    matmul_ = dnnl::matmul(chosen);
    scratch_bytes_ = chosen.scratchpad_desc().get_size();
    if (p.bias) arguments_[DNNL_ARG_BIAS] = memory(bias, engine(), nullptr);
    arguments_[DNNL_ARG_SCRATCHPAD] = memory(chosen.scratchpad_desc(), engine(), nullptr);
  }

  void run(const MatmulArgs& p) {
    if (p.m != m_ || p.k != k_) {
      Descriptions d(p, p.m, p.k);
      arguments_[DNNL_ARG_SRC] = memory(d.a, engine(), nullptr);
      arguments_[DNNL_ARG_WEIGHTS] = memory(d.b, engine(), nullptr);
      arguments_[DNNL_ARG_DST] = memory(d.c, engine(), nullptr);
      m_ = p.m;
      k_ = p.k;
    }
    set(DNNL_ARG_SRC, p.a);
    set(DNNL_ARG_WEIGHTS, p.b);
    set(DNNL_ARG_DST, p.c);
    set(DNNL_ARG_SCRATCHPAD, scratch_memory(scratch_bytes_));
    if (p.bias) set(DNNL_ARG_BIAS, p.bias);
    thread_local dnnl::stream stream(engine());
    matmul_.execute(stream, arguments_);
    stream.wait();
  }

 private:
  void set(int argument, const void* data) {
    arguments_[argument].set_data_handle(const_cast<void*>(data));
  }

  dnnl::matmul matmul_;
  std::unordered_map<int, memory> arguments_;
  size_t scratch_bytes_ = 0;
  int64_t m_ = -1, k_ = -1;  // sizes that arguments_ describe
};

bool fast_bf16() {
  static const bool fast = [] {
    auto isa = dnnl::get_effective_cpu_isa();
    return isa == dnnl::cpu_isa::avx512_core_bf16 || isa == dnnl::cpu_isa::avx512_core_amx;
  }();
  return fast;
}

bool supported(const MatmulArgs& p) {
  if (p.a_type != p.b_type) return false;
  if (p.a_type == DType::f32) {
    return p.c_type == DType::f32 && (!p.bias || p.bias_type == DType::f32);
  }
  if (p.a_type != DType::bf16 || !fast_bf16()) return false;
  return (p.c_type == DType::f32 || p.c_type == DType::bf16) &&
         (!p.bias || p.bias_type == DType::f32 || p.bias_type == DType::bf16);
}

}  // namespace

bool onednn_matmul(const MatmulArgs& p) {
  if (!supported(p)) return false;
  const int threads = threads_for_product(p.m, p.n, p.k);
  Key key{p.m, p.n, p.k, p.lda, p.ldb, p.ldc, 0, threads};
  // Rows are tokens: of A and C in forward and dX, of A and B (summed over) in dW. Made for its
  // number of rows, a product of forward or dX runs up to 1.5 times as fast (f32, B transposed, 64
  // rows; 4 % in bf16), dW slower; so the usual numbers of rows have primitives of their own.
  bool usual = p.m % 256 == 0 || (p.m % 16 == 0 && p.m <= 256);
  if (!p.trans_a && !usual) key.m = kRuntime;
  if (p.trans_a && !p.trans_b) key.k = kRuntime;
  key.flags = (p.trans_a << 0) | (p.trans_b << 1) | (p.accumulate << 2) |
              ((p.bias != nullptr) << 3) | (static_cast<int>(p.a_type) << 4) |
              (static_cast<int>(p.c_type) << 8) | (static_cast<int>(p.bias_type) << 12);
  constexpr size_t kMostPrimitives = 1024;
  thread_local std::unordered_map<Key, Product, KeyHash> products;
  LibraryThreads limited(threads);
  try {
    auto found = products.find(key);
    if (found == products.end()) {
      if (products.size() >= kMostPrimitives) products.clear();
      found = products.emplace(key, Product(p, key)).first;
    }
    found->second.run(p);
  } catch (const dnnl::error& e) {
    fail("oneDNN: {} (status {}) in a product of {} x {} x {}", e.what(),
         static_cast<int>(e.status), p.m, p.n, p.k);
  }
  return true;
}

}  // namespace adagate::cpu

#else

namespace adagate::cpu {

bool onednn_matmul(const MatmulArgs&) {
  return false;
}

}  // namespace adagate::cpu

#endif
