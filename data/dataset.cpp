#include "data/dataset.h"

#include <algorithm>

#include "core/base/error.h"

namespace adagate {

TokenDataset::TokenDataset(TokenFile file, int64_t sequence) : TokenDataset(file.view(), sequence) {
  file_ = std::make_unique<TokenFile>(std::move(file));
}

TokenDataset::TokenDataset(const TokenView& view, int64_t sequence)
    : view_(view), sequence_(sequence) {
  check(sequence >= 1, "data set: windows of {} tokens; at least 1 is needed", sequence);
  check(view.size() >= 2,
        "token file {}: holds {} token, at least 2 are needed to learn what follows; use more text",
        view.name(), view.size());
  size_ = windows(view.size(), sequence);
}

Sample TokenDataset::get(int64_t id) const {
  check(id >= 0 && id < size_, "data set: there is no sample {}, only {}", id, size_);
  Sample sample;
  sample.ids.resize(length(id) + 1);
  view_.read(id * sequence_, sample.ids);
  if (file_) file_->check_same();
  for (int32_t token : sample.ids)
    check(
        token >= 0 && token < view_.vocabulary(),
        "token file {}: token {} in sample {} is outside its vocabulary of {}; make the file again",
        view_.name(), token, id, view_.vocabulary());
  sample.targets.assign(sample.ids.begin() + 1, sample.ids.end());
  sample.ids.pop_back();
  return sample;
}

int64_t TokenDataset::length(int64_t id) const {
  return std::min(sequence_, view_.size() - 1 - id * sequence_);
}

}  // namespace adagate
