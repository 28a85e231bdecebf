// What the program's exit status tells.
#pragma once

#include <string_view>

namespace adagate {

inline constexpr int kUsageError = 2;
inline constexpr int kInterrupted = 130;

struct ExitStatus {
  int code;
  std::string_view meaning;
};

inline constexpr ExitStatus kExitStatuses[] = {
    {0, "Done; also a training that was told to end and has saved a checkpoint."},
    {1, "Failed: one message on standard error names the cause and the remedy."},
    {kUsageError, "The command line is wrong: an unknown command or option, a value out of range."},
    {kInterrupted, "Interrupted (Ctrl-C) before there was a result; nothing was written."},
};

}  // namespace adagate
