#include "apps/options.h"

#include <CLI/CLI.hpp>
#include <fmt/ranges.h>
#include <type_traits>

#include "core/base/error.h"
#include "train/config/config_tree.h"
#include "train/config/yaml_loader.h"

namespace adagate {
namespace {

template <class T>
T read(const std::string& names, const std::string& text, const Constraint& constraint) {
  std::string name = names.substr(0, names.find(','));
  try {
    if constexpr (std::is_same_v<T, std::string>)
      check(!constraint.is_path || !text.empty(), "the path is empty");
    T value{};
    read_value(ConfigNode{.kind = ConfigNode::Kind::scalar, .text = text}, constraint, value);
    return value;
  } catch (const Error& error) {
    throw CLI::ValidationError(name, error.what());
  }
}

// What the help calls a value.
template <class T>
std::string kind_of(const Constraint& constraint) {
  if (!constraint.choices.empty()) return fmt::format("{}", fmt::join(constraint.choices, "|"));
  if constexpr (std::is_same_v<T, int64_t>) return "N";
  if constexpr (std::is_same_v<T, double>) return "X";
  return constraint.is_path ? "PATH" : "TEXT";
}

template <class T>
CLI::Option* add_one(CLI::App& command, const std::string& name, T& value, const std::string& help,
                     const Constraint& constraint) {
  CLI::callback_t take = [name, &value, constraint](const CLI::results_t& results) {
    value = read<T>(name, results.front(), constraint);
    return true;
  };
  return command.add_option(name, take, help)
      ->type_name(kind_of<T>(constraint))
      ->default_str(fmt::format("{}", value));
}

}  // namespace

CLI::Option* add_value(CLI::App& command, const std::string& name, int64_t& value,
                       const std::string& help, const Constraint& constraint) {
  return add_one(command, name, value, help, constraint);
}

CLI::Option* add_value(CLI::App& command, const std::string& name, double& value,
                       const std::string& help, const Constraint& constraint) {
  return add_one(command, name, value, help, constraint);
}

CLI::Option* add_value(CLI::App& command, const std::string& name, std::string& value,
                       const std::string& help, const Constraint& constraint) {
  return add_one(command, name, value, help, constraint);
}

CLI::Option* add_values(CLI::App& command, const std::string& name,
                        std::vector<std::string>& values, const std::string& help,
                        const Constraint& constraint) {
  CLI::callback_t take = [name, &values, constraint](const CLI::results_t& results) {
    values.clear();
    for (const std::string& text : results)
      values.push_back(read<std::string>(name, text, constraint));
    return true;
  };
  return command.add_option(name, take, help)
      ->type_name(kind_of<std::string>(constraint))
      ->expected(1, CLI::detail::expected_max_vector_size)
      ->allow_extra_args();
}

CLI::Validator not_empty() {
  auto verdict = [](std::string& text) -> std::string {
    return text.empty() ? "the path is empty" : "";
  };
  return {verdict, ""};
}

void add_run(CLI::App& command, std::string& run) {
  add_value(command, "RUN,--checkpoint", run, "Output directory of a run, or a checkpoint",
            a_path())
      ->required()
      ->type_name("DIR");
}

void add_device(CLI::App& command, std::string& device) {
  add_value(command, "--device", device,
            "What computes; auto: NVIDIA GPUs where there are any, else the CPU",
            one_of({"auto", "cpu", "cuda"}));
}

void add_threads(CLI::App& command, int64_t& threads) {
  add_value(command, "--threads", threads, "OpenMP threads per rank; 0: all its cores",
            between(0, 4096));
}

}  // namespace adagate
