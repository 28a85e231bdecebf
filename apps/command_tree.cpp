#include "apps/command_tree.h"

#include <fmt/format.h>
#include <sstream>

#include "apps/exit_status.h"
#include "core/base/error.h"
#include "train/config/config_tree.h"

namespace adagate {

std::vector<const CLI::App*> commands_of(const CLI::App& program) {
  return program.get_subcommands([](const CLI::App*) { return true; });
}

std::vector<const CLI::Option*> positionals_of(const CLI::App& command) {
  return command.get_options([](const CLI::Option* o) { return o->get_positional(); });
}

std::vector<const CLI::Option*> options_of(const CLI::App& command) {
  return command.get_options([](const CLI::Option* o) { return o->nonpositional(); });
}

const CLI::App& command_named(const CLI::App& program, const std::string& name) {
  std::vector<std::string> names;
  for (const CLI::App* command : commands_of(program)) {
    if (command->get_name() == name) return *command;
    names.push_back(command->get_name());
  }
  std::string nearest = nearest_word(name, names);
  throw Error(fmt::format("unknown command {}{} (see adagate --help)", quote(name),
                          nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest)),
              kUsageError);
}

std::vector<std::string> names_of(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.get_snames()) names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) names.push_back("--" + name);
  return names;
}

std::string value_of(const CLI::Option& option) {
  if (option.get_type_size() == 0) return "";
  std::string value = option.get_positional() && !option.nonpositional() ? option.get_name(true)
                                                                         : option.get_type_name();
  bool several = option.get_expected_max() >= CLI::detail::expected_max_vector_size;
  return several && option.get_positional() ? value + "..." : value;
}

std::vector<std::string> choices_of(const CLI::Option& option) {
  std::vector<std::string> words;
  std::istringstream type(option.get_type_name());
  for (std::string word; std::getline(type, word, '|');) words.push_back(word);
  return words.size() < 2 ? std::vector<std::string>{} : words;
}

std::string arguments_of(const CLI::App& command) {
  std::string text = "[OPTIONS]";
  for (const CLI::Option* option : positionals_of(command)) {
    bool several = option->get_expected_max() >= CLI::detail::expected_max_vector_size;
    std::string name = option->get_name(true) + (several ? "..." : "");
    text += option->get_required() ? " " + name : " [" + name + "]";
  }
  return text;
}

std::string description_of(const CLI::Option& option) {
  if (option.get_positional() && option.nonpositional())
    return "The same as " + option.get_name(true);
  std::string text = option.get_description(), value = option.get_default_str();
  return value.empty() ? text : fmt::format("{} [{}]", text, value);
}

}  // namespace adagate
