#include "models/weights.h"

#include <set>
#include <string>

#include "core/io/safetensors.h"
#include "parallel/agree.h"

namespace adagate {
namespace fs = std::filesystem;

void load_weights(const fs::path& path, const std::vector<Parameter*>& parameters) {
  SafetensorsFile file(path);
  std::set<std::string> used;
  for (Parameter* p : parameters) {
    check(file.contains(p->name()), "{} has no tensor {}, which the model needs", path.string(),
          p->name());
    const SafetensorsEntry& entry = file.entry(p->name());
    Shape shape = p->spec().global_shape();
    check(entry.shape == shape, "{}: {} has shape {}, the model {}", path.string(), p->name(),
          entry.shape.str(), shape.str());
    Tensor whole = file.read(p->name());
    p->master().copy_from(p->spec().part_of(whole));
    used.insert(p->name());
  }
  for (auto& [name, entry] : file.tensors()) {
    check(used.count(name) > 0, "{} has the tensor {}, which the model does not know",
          path.string(), name);
  }
}

void export_weights(const fs::path& path, const std::vector<Parameter*>& parameters,
                    const Mesh& mesh) {
  std::vector<NamedTensor> all;
  for (Parameter* p : parameters) {
    if (p->spec().is_whole()) {
      all.push_back({p->name(), p->master().detach()});
      continue;
    }
    Tensor whole =
        Tensor::empty(p->spec().global_shape(), p->master().dtype(), p->master().device());
    mesh.group(p->spec().group)
        .parts->on(whole.device(), "export_weights")
        .all_gather(p->master().raw(), whole.raw(), p->numel(), p->master().dtype());
    all.push_back({p->name(), whole});
  }
  on_all_ranks(*mesh.world, [&] {
    if (mesh.world->rank() == 0) write_safetensors(path, all, {{"format", "pt"}});
  });
}

}  // namespace adagate
