// What `adagate COMMAND --help` and the manual page say.
#pragma once

#include <CLI/App.hpp>
#include <string>

namespace adagate {

// Help of the program or of one command, at most 80 columns wide but for its examples.
std::string help_text(const CLI::App& app);

// The page of manual section 1, in roff.
std::string manual_page(const CLI::App& program);

// Lets CLI11 answer --help with help_text().
class HelpFormatter : public CLI::FormatterBase {
 public:
  std::string make_help(const CLI::App* app, std::string, CLI::AppFormatMode) const override {
    return help_text(*app);
  }
};

}  // namespace adagate
