// Lines "CLASS<tab>TEXT" as samples whose last token has the class for its target.
#pragma once

#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/tokenizer.h"

namespace adagate {

class LabelledLines final : public Dataset {
 public:
  // Of each text the first `context` tokens. Throws Error naming file and line of one that isn't
  // of the form, or whose class isn't below `classes`.
  LabelledLines(const std::string& path, const Tokenizer& tokenizer, int64_t context,
                int64_t classes);

  int64_t size() const override { return static_cast<int64_t>(samples_.size()); }
  Sample get(int64_t id) const override { return samples_.at(static_cast<size_t>(id)); }

 private:
  std::vector<Sample> samples_;
};

}  // namespace adagate
