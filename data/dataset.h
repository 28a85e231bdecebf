// Data sets of samples to train on.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/base/error.h"
#include "data/token_file.h"

namespace adagate {

constexpr int32_t kIgnoredTarget = -1;  // a position that takes no part in the loss

struct Sample {
  std::vector<int32_t> ids;      // [length]
  std::vector<int32_t> targets;  // [length], kIgnoredTarget where there is none
};

// Samples by global id, 0 ... size() - 1. get() may be called by many threads at once and gives the
// same sample each time.
class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;
  virtual Sample get(int64_t id) const = 0;
  // Tokens of a sample, if possible without reading it.
  virtual int64_t length(int64_t id) const { return static_cast<int64_t>(get(id).ids.size()); }
};

// Samples [first, first + count) of another data set, which must outlive this one.
class DatasetRange : public Dataset {
 public:
  // Throws Error if they are not all there.
  DatasetRange(const Dataset& whole, int64_t first, int64_t count)
      : whole_(whole), first_(first), count_(count) {
    check(first >= 0 && count >= 0 && first + count <= whole.size(),
          "samples [{}, {}) of a data set of {}", first, first + count, whole.size());
  }
  int64_t size() const override { return count_; }
  Sample get(int64_t id) const override {
    check(id >= 0 && id < count_, "sample {} of {}", id, count_);
    return whole_.get(first_ + id);
  }
  int64_t length(int64_t id) const override { return whole_.length(first_ + id); }

 private:
  const Dataset& whole_;
  int64_t first_, count_;
};

// Consecutive windows of a token file: sample i holds tokens [i * sequence, (i + 1) * sequence) and
// as targets the tokens one further. The last window is shorter where the tokens run out.
class TokenDataset : public Dataset {
 public:
  // Windows of so many tokens, at least 2: every token but the first is a target of one.
  static int64_t windows(int64_t tokens, int64_t sequence) { return (tokens - 2) / sequence + 1; }

  // Throws Error if there are fewer than 2 tokens or sequence < 1.
  TokenDataset(TokenFile file, int64_t sequence);
  // Over a view whose bytes outlive the data set.
  TokenDataset(const TokenView& view, int64_t sequence);
  int64_t size() const override { return size_; }
  // Throws Error on a damaged file: a token outside the file's vocabulary.
  Sample get(int64_t id) const override;
  int64_t length(int64_t id) const override;
  int64_t sequence() const { return sequence_; }
  const TokenView& view() const { return view_; }

 private:
  std::unique_ptr<TokenFile> file_;  // null over a view
  TokenView view_;
  int64_t sequence_;
  int64_t size_ = 0;
};

}  // namespace adagate
