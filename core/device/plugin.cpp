#include "core/device/plugin.h"

#include <cstdlib>
#include <dlfcn.h>
#include <filesystem>

#include "core/base/error.h"

// Of an installation, from its folder of programs; the build knows better.
#ifndef ADAGATE_LIBRARY_FOLDER
#define ADAGATE_LIBRARY_FOLDER "../lib"
#endif

namespace adagate {

namespace fs = std::filesystem;

std::string find_plugin(std::string_view file, const char* variable) {
  if (const char* named = std::getenv(variable); named && *named) return named;
  std::error_code error;
  fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (const char* place : {".", ADAGATE_LIBRARY_FOLDER}) {
    fs::path found = (folder / place / file).lexically_normal();
    if (fs::exists(found, error)) return found.string();
  }
  return "";
}

void* open_plugin(const std::string& file, const char* function, const std::string& what) {
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) fail("cannot open {}: {}", what, dlerror());
  void* address = dlsym(library, function);
  check(address != nullptr, "{} is not {}: it has no function {}", file, what, function);
  return address;
}

}  // namespace adagate
