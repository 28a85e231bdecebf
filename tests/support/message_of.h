#pragma once

#include <functional>
#include <string>

#include "core/base/error.h"

namespace adagate {

// What the Error says that `action` throws; "no error" where it throws none.
inline std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace adagate
