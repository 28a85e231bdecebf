#include "tests/cuda/emulator/config.h"

#include <cstdlib>
#include <string>

#include "tests/cuda/emulator/faults.h"

namespace adagate::emulator {
namespace {

Order order_named(const std::string& name) {
  if (name == "forward") return Order::forward;
  if (name == "reverse") return Order::reverse;
  if (name == "random") return Order::random;
  stop("ADAGATE_EMULATOR_ORDER is " + name + ", not forward, reverse or random");
}

Config of_environment() {
  Config config;
  if (const char* order = std::getenv("ADAGATE_EMULATOR_ORDER")) config.order = order_named(order);
  if (const char* seed = std::getenv("ADAGATE_EMULATOR_SEED"))
    config.seed = std::strtoull(seed, nullptr, 10);
  if (const char* threads = std::getenv("ADAGATE_EMULATOR_THREADS"))
    config.os_threads = std::atoi(threads);
  if (const char* guarded = std::getenv("ADAGATE_EMULATOR_GUARDED"))
    config.guarded = std::string(guarded) != "0";
  return config;
}

}  // namespace

Config& config() {
  static Config config = of_environment();
  return config;
}

}  // namespace adagate::emulator
