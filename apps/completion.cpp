#include "apps/completion.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <vector>

#include "apps/command_tree.h"
#include "train/config/config_writer.h"
#include "train/config/run_config.h"

namespace adagate {
namespace {

std::vector<std::string> keys_with_equals() {
  std::vector<std::string> keys;
  for (const FieldInfo& field : list_fields(RunConfig{})) {
    if (field.is_section) continue;
    keys.push_back((field.section.empty() ? "" : field.section + ".") + field.key + "=");
  }
  return keys;
}

std::string command_names(const CLI::App& program) {
  std::vector<std::string> names;
  for (const CLI::App* command : commands_of(program)) names.push_back(command->get_name());
  return fmt::format("{}", fmt::join(names, " "));
}

std::string option_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : options_of(command))
    for (std::string& name : names_of(*option)) names.push_back(std::move(name));
  return fmt::format("{}", fmt::join(names, " "));
}

// The words that may stand behind an option or as a positional: "auto DIR" of auto|DIR has one.
struct Values {
  std::string words;
  bool is_path = false;
};

Values values_of(const CLI::App& program, const CLI::Option& option) {
  std::string type = option.get_type_name();
  if (type == "COMMAND") return {command_names(program)};
  if (type == "KEY=VALUE") return {fmt::format("{}", fmt::join(keys_with_equals(), " "))};
  Values values{
      .words = "",
      .is_path = type.ends_with("PATH") || type.ends_with("FILE") || type.ends_with("DIR")};
  for (const std::string& word : choices_of(option))
    if (word != "DIR") values.words += (values.words.empty() ? "" : " ") + word;
  return values;
}

std::string bash_reply(const Values& values) {
  return fmt::format("mapfile -t COMPREPLY < <(compgen{} -W '{}' -- \"$word\")",
                     values.is_path ? " -f" : "", values.words) +
         (values.is_path ? "; compopt -o filenames" : "");
}

// One arm of the case on "command option".
std::string bash_arms(const CLI::App& program, const CLI::App& command) {
  std::string arms;
  for (const CLI::Option* option : options_of(command)) {
    if (option->get_type_size() == 0) continue;
    Values values = values_of(program, *option);
    std::vector<std::string> patterns;
    for (const std::string& name : names_of(*option))
      patterns.push_back(fmt::format("'{} {}'", command.get_name(), name));
    std::string space = option->get_type_name() == "KEY=VALUE" ? "compopt -o nospace; " : "";
    arms += fmt::format("    {}) {}{}; return ;;\n", fmt::join(patterns, " | "), space,
                        bash_reply(values));
  }
  return arms;
}

std::string bash_script(const CLI::App& program) {
  std::string script = R"(# bash completion of adagate; written by `adagate completion bash`.
_adagate() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}
  # bash takes = for a word of its own.
  if [ "$word" = = ]; then word=
  elif [ "$before" = = ]; then before=${COMP_WORDS[COMP_CWORD-2]}; fi
  COMPREPLY=()
  if [ "$COMP_CWORD" = 1 ]; then
)";
  script += fmt::format(
      "    mapfile -t COMPREPLY < <(compgen -W '{} {}' -- \"$word\")\n"
      "    return\n  fi\n  case \"$command $before\" in\n",
      command_names(program), option_names(program));
  for (const CLI::App* command : commands_of(program)) script += bash_arms(program, *command);
  script += "  esac\n  case $command in\n";
  for (const CLI::App* command : commands_of(program)) {
    Values values;
    for (const CLI::Option* positional : positionals_of(*command))
      values = values_of(program, *positional);
    script += fmt::format(
        "    {})\n      if [[ $word == -* ]]; then\n"
        "        mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$word\")\n"
        "      else\n        {}\n      fi ;;\n",
        command->get_name(), option_names(*command), bash_reply(values));
  }
  return script + "  esac\n}\ncomplete -F _adagate adagate\n";
}

// Text between single quotes of zsh and fish.
std::string single_quoted(const std::string& text, const char* escaped_quote) {
  std::string quoted;
  for (char c : text) quoted += c == '\'' ? escaped_quote : std::string(1, c);
  return quoted;
}

// Text inside the [..] and :..: of a _arguments specification.
std::string zsh_text(const std::string& text) {
  std::string escaped;
  for (char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') escaped += '\\';
    escaped += c;
  }
  return single_quoted(escaped, "'\\''");
}

std::string zsh_action(const CLI::App& program, const CLI::Option& option) {
  Values values = values_of(program, option);
  if (values.words.empty()) return values.is_path ? "_files" : " ";
  if (option.get_type_name() == "KEY=VALUE")
    return fmt::format("compadd -S \"\" -- {}", values.words);
  return fmt::format("({})", values.words);
}

std::string zsh_command(const CLI::App& program, const CLI::App& command) {
  std::string text = fmt::format("    {})\n      _arguments -s", command.get_name());
  for (const CLI::Option* option : options_of(command)) {
    for (const std::string& name : names_of(*option)) {
      bool flag = option->get_type_size() == 0, many = name == "--set";
      std::string value =
          flag ? ""
               : fmt::format(":{}:{}", zsh_text(value_of(*option)), zsh_action(program, *option));
      text += fmt::format(" \\\n        '{}{}{}[{}]{}'", many ? "*" : "", name,
                          !flag && name.starts_with("--") ? "=" : "",
                          zsh_text(description_of(*option)), value);
    }
  }
  for (const CLI::Option* option : positionals_of(command)) {
    text += fmt::format(" \\\n        '{}:{}:{}'", option->get_expected_max() > 1 ? "*" : "",
                        option->get_name(true), zsh_action(program, *option));
  }
  return text + " ;;\n";
}

std::string zsh_script(const CLI::App& program) {
  std::string script = R"(#compdef adagate
# zsh completion of adagate; written by `adagate completion zsh`.
_adagate() {
  local -a commands=(
)";
  for (const CLI::App* command : commands_of(program))
    script +=
        fmt::format("    '{}:{}'\n", command->get_name(), zsh_text(command->get_description()));
  script += R"(  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
)";
  for (const CLI::App* command : commands_of(program)) script += zsh_command(program, *command);
  return script +
         "  esac\n}\nif [ \"$funcstack[1]\" = _adagate ]; then _adagate \"$@\"; else "
         "compdef _adagate adagate; fi\n";
}

std::string fish_option(const CLI::App& program, const CLI::Option& option,
                        const std::string& condition) {
  std::string line = fmt::format("complete -c adagate{}", condition);
  for (const std::string& name : option.get_snames()) line += " -s " + name;
  for (const std::string& name : option.get_lnames()) line += " -l " + name;
  if (option.get_type_size() > 0) {
    Values values = values_of(program, option);
    line += values.is_path ? " -r -F" : " -x";
    if (!values.words.empty()) line += fmt::format(" -a '{}'", values.words);
  }
  return line + fmt::format(" -d '{}'\n", single_quoted(description_of(option), "\\'"));
}

std::string fish_script(const CLI::App& program) {
  std::string script =
      "# fish completion of adagate; written by `adagate completion fish`.\n"
      "complete -c adagate -f\n";
  for (const CLI::Option* option : options_of(program))
    script += fish_option(program, *option, " -n __fish_use_subcommand");
  for (const CLI::App* command : commands_of(program)) {
    script += fmt::format("complete -c adagate -n __fish_use_subcommand -a {} -d '{}'\n",
                          command->get_name(), single_quoted(command->get_description(), "\\'"));
    std::string condition =
        fmt::format(" -n '__fish_seen_subcommand_from {}'", command->get_name());
    for (const CLI::Option* option : options_of(*command))
      script += fish_option(program, *option, condition);
    for (const CLI::Option* positional : positionals_of(*command)) {
      Values values = values_of(program, *positional);
      script += fmt::format("complete -c adagate{}{}", condition, values.is_path ? " -F" : " -f");
      script += values.words.empty() ? "\n" : fmt::format(" -a '{}'\n", values.words);
    }
  }
  return script;
}

}  // namespace

std::string completion_script(const CLI::App& program, const std::string& shell) {
  if (shell == "bash") return bash_script(program);
  return shell == "zsh" ? zsh_script(program) : fish_script(program);
}

}  // namespace adagate
