#include "core/nn/parameter_store.h"

#include <unordered_set>

#include "core/base/rng.h"

namespace adagate {
namespace {

// Every parameter starts on a cache line in each of the flat buffers.
constexpr int64_t kAlign = 64;

void check_shard(const Parameter& p) {
  const ParameterSpec& spec = p.spec();
  if (spec.is_whole()) return;
  check(spec.shard.dim == 0, "{}: a part along dimension {}; ranks can only share the first one, 0",
        p.name(), spec.shard.dim);
  int64_t count = spec.shape.rank() ? spec.shape[0] : 0;
  check(spec.shard.begin >= 0 && count > 0 && spec.shard.begin + count <= spec.shard.global,
        "{}: {} entries from {} on are no part of {}", p.name(), count, spec.shard.begin,
        spec.shard.global);
}

void fill_initial(Parameter& p, uint64_t seed) {
  const ParameterSpec& spec = p.spec();
  if (spec.init.kind != Init::Kind::normal) {
    p.master().fill(spec.init.kind == Init::Kind::ones ? 1.0 : 0.0);
    return;
  }
  // By the name and the place in the whole tensor: the same values on any number of ranks, and a
  // new layer moves no other one's.
  Rng rng(seed, RngStream::init, hash_name(p.name()) >> 32, hash_name(p.name()));
  int64_t n = p.numel();
  int64_t first = spec.is_whole() ? 0 : spec.shard.begin * (n / spec.shape[0]);
  // Made by the host on every device, so that no device's logarithm changes a model's start.
  Tensor made = Tensor::empty(p.master().shape(), p.master().dtype());
  visit_floating(made.dtype(), [&](auto type) {
    auto* values = made.data<decltype(type)>();
#pragma omp parallel for schedule(static) if (n > 4096)
    for (int64_t i = 0; i < n; ++i) {
      values[i] = static_cast<decltype(type)>(rng.normal(static_cast<uint64_t>(first + i)) *
                                              static_cast<float>(spec.init.stddev));
    }
  });
  p.master().copy_from(made);
}

}  // namespace

ParameterStore::ParameterStore(Module& model, StoreOptions options) : options_(std::move(options)) {
  std::unordered_set<std::string> names;
  PerGroup<int64_t> sizes;
  model.for_each_parameter([&](const std::string& name, Parameter& p) {
    check(names.insert(name).second, "two parameters are called {}", name);
    p.name_ = name;
    check_shard(p);
    ParameterGroup g = p.spec().group;
    // One behind the other in the order of forward: gradients are ready, and reduced, from the end.
    p.offset_ = sizes[g];
    sizes[g] += (p.numel() + kAlign - 1) / kAlign * kAlign;
    groups_[g].parameters.push_back(&p);
    all_.push_back(&p);
  });
  for (ParameterGroup g : kAllGroups) {
    FlatGroup& flat = groups_[g];
    int64_t n = sizes[g];
    Device device = options_.device;
    flat.master = Tensor::zeros({n}, options_.master, device);
    size_t bytes = static_cast<size_t>(n) * size_of(options_.master);
    // Ranks that reduce through shared memory give the gradients a place there.
    auto memory = options_.allocate_grad && bytes ? options_.allocate_grad(g, bytes) : nullptr;
    void* address = memory.get();
    flat.grad = memory ? Tensor::from_storage(Storage::wrap(address, bytes, device, memory), 0, {n},
                                              options_.master)
                       : Tensor::zeros({n}, options_.master, device);
    if (options_.compute != options_.master)
      flat.compute = Tensor::zeros({n}, options_.compute, device);
    for (Parameter* p : flat.parameters) {
      auto piece = [&](const Tensor& buffer) {
        return buffer.slice(p->offset_, p->offset_ + p->numel()).reshape(p->spec().shape);
      };
      p->master_ = piece(flat.master);
      p->grad_ = piece(flat.grad);
      p->value_ = flat.compute && !p->spec().full_precision ? piece(flat.compute) : p->master_;
      p->value_.set_slot(std::make_shared<GradSlot>(p->grad_));
    }
  }
}

void ParameterStore::initialize(uint64_t seed) {
  for (Parameter* p : all_) fill_initial(*p, seed);
  refresh_compute();
}

Parameter* ParameterStore::find(const std::string& name) const {
  for (Parameter* p : all_)
    if (p->name() == name) return p;
  return nullptr;
}

FlatRange ParameterStore::range_of(Module& module, ParameterGroup g) const {
  FlatRange range{INT64_MAX, 0};
  module.visit_parameters([&](const Parameter& p) {
    if (p.spec().group != g) return;
    // With the padding behind it, so that neighbouring modules leave no gap between their ranges.
    range.begin = std::min(range.begin, p.offset());
    range.end = std::max(range.end, p.offset() + (p.numel() + kAlign - 1) / kAlign * kAlign);
  });
  return range.begin > range.end ? FlatRange{} : range;
}

void ParameterStore::clear_gradients() {
  for (Parameter* p : all_) p->value_.slot()->clear();
}

void ParameterStore::zero_untouched_gradients() {
  for (Parameter* p : all_)
    // The first to write overwrites; experts that no token chose have nobody who writes.
    if (!p->value_.slot()->filled()) p->grad_.fill(0);
}

void ParameterStore::refresh_compute() {
  for (FlatGroup& flat : groups_)
    if (flat.compute) flat.compute.copy_from(flat.master);
}

}  // namespace adagate
