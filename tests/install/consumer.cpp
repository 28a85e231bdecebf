#include <cstdio>

#include "core/base/error.h"
#include "parallel/mesh.h"
#include "train/config/duration.h"

int main() {
  adagate::Mesh mesh = adagate::make_self_mesh();
  try {
    adagate::check(mesh.ranks() == 2, "ranks: {}", mesh.ranks());
  } catch (const adagate::Error& error) {
    std::puts(error.what());
    return 0;
  }
  return 1;
}
