#include "data/labelled_lines.h"

#include <charconv>

#include "core/io/atomic_file.h"

namespace adagate {
namespace {

// The class in front of the tab; -1: none.
int64_t class_of(std::string_view line) {
  size_t tab = line.find('\t');
  int64_t value = -1;
  if (tab == std::string_view::npos || tab + 1 == line.size()) return -1;
  auto [end, error] = std::from_chars(line.data(), line.data() + tab, value);
  return error == std::errc() && end == line.data() + tab ? value : -1;
}

}  // namespace

LabelledLines::LabelledLines(const std::string& path, const Tokenizer& tokenizer, int64_t context,
                             int64_t classes) {
  std::string text = read_text_file(path, "labelled lines");
  for (size_t begin = 0; begin < text.size();) {
    size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    int64_t label = class_of(line);
    check(label >= 0 && label < classes,
          "{}:{}: a class from 0 to {}, a tab and a text are expected", path, samples_.size() + 1,
          classes - 1);
    Sample sample{.ids = tokenizer.encode(line.substr(line.find('\t') + 1)), .targets = {}};
    if (static_cast<int64_t>(sample.ids.size()) > context)
      sample.ids.resize(static_cast<size_t>(context));
    sample.targets.assign(sample.ids.size(), kIgnoredTarget);
    sample.targets.back() = static_cast<int32_t>(label);
    samples_.push_back(std::move(sample));
  }
  check(!samples_.empty(), "{} has no line", path);
}

}  // namespace adagate
