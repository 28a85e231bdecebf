// A folder that lives as long as one test.
#pragma once

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <unistd.h>

namespace adagate {

class TempFolder {
 public:
  TempFolder() {
    static std::atomic<int> next = 0;
    root_ = std::filesystem::temp_directory_path() /
            ("adagate_test_" + std::to_string(getpid()) + "_" + std::to_string(next++));
    std::filesystem::create_directories(root_);
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::filesystem::path& path() const { return root_; }
  std::string path(const std::string& name) const { return (root_ / name).string(); }
  // Writes a file, making the folders it lies in; returns its path.
  std::string write(const std::string& name, const std::string& content) const {
    std::filesystem::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name, std::ios::binary) << content;
    return path(name);
  }
  std::string read(const std::string& name) const {
    std::ifstream in(root_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

 private:
  std::filesystem::path root_;
};

}  // namespace adagate
