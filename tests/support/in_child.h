// Code that ends its process, run in a child.
#pragma once

#include <exception>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/catch.h"

namespace adagate::test {

struct Ended {
  int status;          // -1: by a signal
  std::string output;  // to standard error
};

// Runs f in a child process: 0 when it returns, 1 and the message when it throws. The child has the
// calling thread only: no OpenMP in it.
template <class F>
Ended in_child(F&& f) {
  int channel[2];
  REQUIRE(pipe(channel) == 0);
  pid_t child = fork();
  if (child == 0) {
    dup2(channel[1], STDERR_FILENO);
    try {
      f();
    } catch (const std::exception& error) {
      [[maybe_unused]] auto written =
          write(STDERR_FILENO, error.what(), std::string(error.what()).size());
      _exit(1);
    }
    _exit(0);
  }
  close(channel[1]);
  Ended ended{};
  char buffer[512];
  for (ssize_t n; (n = read(channel[0], buffer, sizeof buffer)) > 0;)
    ended.output.append(buffer, static_cast<size_t>(n));
  close(channel[0]);
  waitpid(child, &ended.status, 0);
  ended.status = WIFEXITED(ended.status) ? WEXITSTATUS(ended.status) : -1;
  return ended;
}

}  // namespace adagate::test
