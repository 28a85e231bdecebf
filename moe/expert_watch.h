// Notices experts that hardly any token goes to, and experts that take nearly all.
#pragma once

#include <string>
#include <vector>

#include "moe/routing_step.h"

namespace adagate {

struct ExpertWatchLimits {
  // Steps of a stretch, at least, and assignments that an even load would give each expert in it:
  // with fewer, chance alone could starve one.
  int64_t steps = 100;
  double even_load = 1000;
  double starved = 0.01;    // of an even load; less is starved
  double recovered = 0.1;   // of an even load; so much ends it
  double collapsed = 0.95;  // of a layer's tokens; where an even load is half of them at most
};

struct ExpertEvent {
  enum class Kind : uint8_t { starved, recovered, collapsed, spread } kind;
  int64_t block = 0;
  std::vector<int64_t> experts;  // to which it happened in this stretch
  int64_t steps = 0;             // of the stretch
  double assigned = 0;           // to these experts in the stretch
  double tokens = 0, even_load = 0;
};

// "MoE block 3: experts 1, 5 got 12 of ..., ..", with the remedy.
std::string describe(const ExpertEvent& event);

class ExpertWatch {
 public:
  explicit ExpertWatch(const ExpertWatchLimits& limits = {}) : limits_(limits) {}

  // Adds a finished step, which has the counts of all ranks. At the end of a stretch returns what
  // has changed in it: once when an expert is starved or takes nearly all, once when it is so no
  // more.
  std::vector<ExpertEvent> add(const RoutingStep& step);

  // Experts starved in the last whole stretch: "block 3: 1, 5"; empty: none.
  std::string starved() const;

 private:
  struct Layer {
    int64_t block = 0;
    double tokens = 0;
    std::vector<double> assigned;       // [experts]
    std::vector<char> starved, taking;  // [experts]
  };
  bool is_whole() const;
  void judge(Layer& layer, std::vector<ExpertEvent>& events) const;

  ExpertWatchLimits limits_;
  std::vector<Layer> layers_;
  int64_t steps_ = 0;
};

}  // namespace adagate
