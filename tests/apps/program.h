// Runs the program and says what came of it.
#pragma once

#include <chrono>
#include <cstdio>
#include <string>
#include <sys/wait.h>
#include <vector>

#include "tests/support/catch.h"
#include "tests/support/test_paths.h"

namespace adagate::program {

struct Outcome {
  int status = -1;
  std::string output;  // standard output and error together
  double seconds = 0;
};

inline Outcome run_shell(const std::string& command) {
  auto start = std::chrono::steady_clock::now();
  FILE* pipe = popen(("cd " + source_path("") + " && { " + command + "; } 2>&1").c_str(), "r");
  REQUIRE(pipe);
  Outcome outcome;
  char buffer[4096];
  while (size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) outcome.output.append(buffer, n);
  int status = pclose(pipe);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return outcome;
}

inline Outcome run(const std::string& arguments) {
  return run_shell(ADAGATE_PROGRAM " " + arguments);
}

inline Outcome run_on_two_ranks(const std::string& arguments) {
  return run_shell(
      "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
      "mpirun --oversubscribe -n 2 " ADAGATE_PROGRAM " " +
      arguments);
}

inline int count_of(const std::string& part, const std::string& text) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

}  // namespace adagate::program
