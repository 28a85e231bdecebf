// Standard output for a person who watches: lines that stay, and one that renews itself where there
// is a terminal. Nobody who stops reading holds the training up when it is to end: a launcher that
// ends its job reads no more, and a rank that waits for it could not save.
#pragma once

#include <mutex>
#include <string>
#include <string_view>

#include "train/terminal.h"

namespace adagate {

class Console {
 public:
  Console();
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  // Lines can renew themselves.
  bool renews() const { return renews_; }
  // Columns of such a line; the last one stays free, where some terminals break the line.
  int width() const { return terminal_.columns() - 1; }

  // Puts `text` where the last call put its own. Never waits: what can't be written is dropped.
  void renew(const std::string& text);
  // Takes the renewing line away; messages of the log do so by themselves.
  void clear();
  // Leaves it as it is and begins a new one.
  void keep();
  // A line that stays. Waits for a reader; once a signal has asked for the end, a moment at most.
  // Where writing fails, output_failure() tells; nothing is written from then on.
  void print(const std::string& text);

 private:
  void erase();
  void write(std::string_view text, bool wait);

  std::mutex mutex_;  // the log's messages come from other threads too
  Terminal terminal_;
  int output_;  // never blocks, if own_
  bool own_ = false;
  bool renews_;
  bool live_ = false;  // a renewing line stands there
};

}  // namespace adagate
