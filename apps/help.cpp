#include "apps/help.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sstream>

#include "apps/command_tree.h"
#include "apps/exit_status.h"

namespace adagate {
namespace {

constexpr size_t kColumns = 80;
constexpr size_t kIndent = 24;  // where descriptions begin

// `text` in lines up to kColumns, each behind `indent` spaces, the first of which hold `line`.
std::string wrapped(std::string line, size_t indent, const std::string& text) {
  std::string rows;
  line.resize(indent, ' ');
  std::istringstream words(text);
  size_t in_line = 0;
  for (std::string word; words >> word; ++in_line) {
    if (in_line > 0 && line.size() + 1 + word.size() > kColumns) {
      rows += line + "\n";
      line.assign(indent, ' ');
      in_line = 0;
    }
    line += (in_line > 0 ? " " : "") + word;
  }
  return rows + line + "\n";
}

// `text` beside `head`, below it where that is too long.
std::string row(const std::string& head, const std::string& text) {
  std::string line = "  " + head;
  if (line.size() + 2 <= kIndent) return wrapped(line, kIndent, text);
  return line + "\n" + wrapped("", kIndent, text);
}

std::string head_of(const CLI::Option& option) {
  std::string value = value_of(option);
  return fmt::format("{}{}", fmt::join(names_of(option), ", "), value.empty() ? "" : " " + value);
}

std::string positional_description(const CLI::Option& option) {
  std::string value = option.get_default_str();
  return option.get_description() + (value.empty() ? "" : fmt::format(" [{}]", value));
}

std::string command_line(const CLI::App& app) {
  if (!app.get_parent()) return app.get_name() + " [OPTIONS] COMMAND ...";
  return fmt::format("{} {} {}", app.get_parent()->get_name(), app.get_name(), arguments_of(app));
}

// Text as roff takes it: as it stands.
std::string roff(const std::string& text) {
  std::string escaped;
  for (char c : text) {
    if (c == '\\')
      escaped += "\\e";
    else if (c == '-')
      escaped += "\\-";
    else if (c == '\'' && (escaped.empty() || escaped.back() == '\n'))
      escaped += "\\(aq";
    else if (c == '.' && (escaped.empty() || escaped.back() == '\n'))
      escaped += "\\&.";
    else
      escaped += c;
  }
  return escaped;
}

std::string roff_item(const std::string& head, const std::string& text) {
  return fmt::format(".TP\n\\fB{}\\fR\n{}\n", roff(head), roff(text));
}

std::string roff_verbatim(const std::string& text) {
  return fmt::format(".nf\n{}\n.fi\n", roff(text));
}

std::string manual_of_command(const CLI::App& command) {
  std::string text = fmt::format(".SS adagate {} {}\n{}.\n", roff(command.get_name()),
                                 roff(arguments_of(command)), roff(command.get_description()));
  for (const CLI::Option* option : positionals_of(command))
    text += roff_item(option->get_name(true), positional_description(*option));
  for (const CLI::Option* option : options_of(command))
    text += roff_item(head_of(*option), description_of(*option));
  if (!command.get_footer().empty()) text += ".PP\n" + roff_verbatim(command.get_footer());
  return text;
}

}  // namespace

std::string help_text(const CLI::App& app) {
  std::string text =
      wrapped("", 0, app.get_description()) + fmt::format("\nUsage: {}\n", command_line(app));
  auto commands = commands_of(app);
  if (!commands.empty()) text += "\nCommands:\n";
  for (const CLI::App* command : commands)
    text += row(command->get_name(), command->get_description());
  auto positionals = positionals_of(app);
  if (!positionals.empty()) text += "\nArguments:\n";
  for (const CLI::Option* option : positionals)
    text += row(option->get_name(true), positional_description(*option));
  text += "\nOptions:\n";
  for (const CLI::Option* option : options_of(app))
    text += row(head_of(*option), description_of(*option));
  return app.get_footer().empty() ? text : text + "\n" + app.get_footer() + "\n";
}

std::string manual_page(const CLI::App& program) {
  std::string text = fmt::format(
      ".TH ADAGATE 1\n.SH NAME\nadagate \\- {}\n.SH SYNOPSIS\n.B adagate\n"
      "[OPTIONS] COMMAND ...\n.br\n.B mpirun\n\\-n RANKS adagate COMMAND ...\n"
      ".SH DESCRIPTION\n"
      "Trains language models, measures them and lets them write. A run is described by one YAML\n"
      "file; \\fBadagate config \\-\\-reference\\fR explains its keys.\n.SH OPTIONS\n",
      roff(program.get_description()));
  for (const CLI::Option* option : options_of(program))
    text += roff_item(head_of(*option), description_of(*option));
  text += ".SH COMMANDS\n";
  for (const CLI::App* command : commands_of(program)) text += manual_of_command(*command);
  text += ".SH EXIT STATUS\n";
  for (const ExitStatus& status : kExitStatuses)
    text += roff_item(fmt::format("{}", status.code), std::string(status.meaning));
  return text;
}

}  // namespace adagate
