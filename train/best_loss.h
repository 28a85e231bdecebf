// The lowest validation loss of a run, which a resumed run goes on from.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace adagate {

struct BestLoss {
  double loss = 0;  // finite
  int64_t step = 0;
};

// The better one of `best` and another evaluation's; a loss that isn't finite is none.
std::optional<BestLoss> better(const std::optional<BestLoss>& best, double loss, int64_t step);

// To and from what a checkpoint keeps beside the tensors; none where there is no sound one.
void write_best(const std::optional<BestLoss>& best, std::map<std::string, std::string>& extra);
std::optional<BestLoss> read_best(const std::map<std::string, std::string>& extra);

}  // namespace adagate
