// Groups of parameters by the ranks that hold them.
#pragma once

#include <array>
#include <cstdint>
#include <iterator>
#include <string_view>

namespace adagate {

// Parameters of a group lie on the same ranks; Mesh::group() (parallel/mesh.h) says on which. A new
// group takes an entry here, its name, and the mesh's answer: everything else walks over all.
enum class ParameterGroup : uint8_t { dense, expert };
constexpr std::string_view kParameterGroupNames[] = {"dense", "expert"};

constexpr int kParameterGroups = std::size(kParameterGroupNames);
constexpr auto kAllGroups = [] {
  std::array<ParameterGroup, kParameterGroups> all{};
  for (size_t g = 0; g < all.size(); ++g) all[g] = static_cast<ParameterGroup>(g);
  return all;
}();

constexpr std::string_view name_of(ParameterGroup group) {
  return kParameterGroupNames[static_cast<size_t>(group)];
}

// A T for each group.
template <class T>
class PerGroup {
 public:
  T& operator[](ParameterGroup group) { return values_[static_cast<size_t>(group)]; }
  const T& operator[](ParameterGroup group) const { return values_[static_cast<size_t>(group)]; }
  auto begin() { return values_.begin(); }
  auto end() { return values_.end(); }

 private:
  std::array<T, kParameterGroups> values_{};
};

}  // namespace adagate
