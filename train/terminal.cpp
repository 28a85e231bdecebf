#include "train/terminal.h"

#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <string>
#include <string_view>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "parallel/placement.h"

namespace adagate {
namespace {

constexpr int kUsualColumns = 80;

// The launcher's standard output if it is a terminal, else -1. Anything else is not opened: the
// end of a pipe would count as a reader of it.
int open_launchers_terminal() {
  std::string path = fmt::format("/proc/{}/fd/1", launcher_process());
  struct stat info;
  if (stat(path.c_str(), &info) != 0 || !S_ISCHR(info.st_mode)) return -1;
  int fd = open(path.c_str(), O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0 || isatty(fd)) return fd;
  close(fd);
  return -1;
}

int columns_of_environment() {
  const char* text = std::getenv("COLUMNS");
  long columns = text ? std::strtol(text, nullptr, 10) : 0;
  return columns > 0 && columns < 10000 ? static_cast<int>(columns) : kUsualColumns;
}

}  // namespace

bool renewing_lines_wanted(const EnvironmentOf& get) {
  auto value = [&](const char* name) {
    const char* text = get(name);
    return std::string_view(text ? text : "");
  };
  std::string_view terminal = value("TERM"), ci = value("CI");
  bool in_ci = !ci.empty() && ci != "0" && ci != "false";
  return !terminal.empty() && terminal != "dumb" && value("NO_COLOR").empty() && !in_ci;
}

Terminal::Terminal(int output) {
  if (!isatty(output)) return;
  watched_ = read_launch_environment().launched ? open_launchers_terminal()
                                                : fcntl(output, F_DUPFD_CLOEXEC, 0);
}

Terminal::~Terminal() {
  if (watched_ >= 0) close(watched_);
}

int Terminal::columns() const {
  winsize size{};
  bool told = watched_ >= 0 && ioctl(watched_, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return told ? size.ws_col : columns_of_environment();
}

}  // namespace adagate
