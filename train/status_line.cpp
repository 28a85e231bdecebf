#include "train/status_line.h"

#include <algorithm>
#include <vector>

namespace adagate {

std::string status_line(std::span<const StatusField> fields) {
  std::string line;
  for (const StatusField& field : fields) line += (line.empty() ? "" : "  ") + field.text;
  return line;
}

std::string status_line(std::span<const StatusField> fields, int width) {
  std::vector<StatusField> kept(fields.begin(), fields.end());
  auto room = static_cast<size_t>(std::max(0, width));
  std::string line = status_line(kept);
  while (line.size() > room && kept.size() > 1) {
    kept.erase(std::min_element(
        kept.begin(), kept.end(),
        [](const StatusField& a, const StatusField& b) { return a.weight < b.weight; }));
    line = status_line(kept);
  }
  return line.substr(0, room);
}

}  // namespace adagate
