#include "train/best_loss.h"

#include <cmath>
#include <fmt/format.h>
#include <sstream>

namespace adagate {
namespace {

constexpr const char* kKey = "best_validation";  // "LOSS STEP"

}  // namespace

std::optional<BestLoss> better(const std::optional<BestLoss>& best, double loss, int64_t step) {
  if (!std::isfinite(loss) || (best && best->loss <= loss)) return best;
  return BestLoss{.loss = loss, .step = step};
}

void write_best(const std::optional<BestLoss>& best, std::map<std::string, std::string>& extra) {
  if (best) extra[kKey] = fmt::format("{:.17g} {}", best->loss, best->step);
}

std::optional<BestLoss> read_best(const std::map<std::string, std::string>& extra) {
  auto it = extra.find(kKey);
  if (it == extra.end()) return std::nullopt;
  std::istringstream text(it->second);
  BestLoss best;
  bool sound = text >> best.loss >> best.step && std::isfinite(best.loss);
  return sound ? std::optional(best) : std::nullopt;
}

}  // namespace adagate
