// The evaluations that a run makes on its way.
#pragma once

#include <cstdint>
#include <optional>

#include "train/observer.h"
#include "train/run.h"

namespace adagate {

class Validation {
 public:
  // `run` must outlive this.
  explicit Validation(const Run& run);

  bool possible() const { return run_.data.validation != nullptr; }
  // Of the model as it is after `step`; its `best` is left to the caller. None when a signal
  // stopped it. Collective. What the report points to is valid until the next one.
  std::optional<EvaluationReport> evaluate_after(int64_t step);

 private:
  const Run& run_;
  std::optional<RoutingStep> routing_;  // none in a dense model
};

}  // namespace adagate
