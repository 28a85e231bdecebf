// Mapped files that change under the reader.
#include <filesystem>
#include <fstream>
#include <numeric>
#include <signal.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "core/base/error.h"
#include "core/io/mapped_file.h"
#include "core/io/safetensors.h"
#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"

using namespace adagate;
namespace fs = std::filesystem;
using Catch::Contains;

namespace {

constexpr size_t kPage = 4096, kSize = 10 * kPage;

int64_t sum_of(std::span<const char> bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), int64_t{0});
}

}  // namespace

TEST_CASE("mapped file: one that is cut gives zeros and an error, in any thread") {
  TempFolder folder;
  std::string path = folder.write("data", std::string(kSize, '\1'));
  MappedFile cut(path);
  MappedFile whole(folder.write("other", std::string(kSize, '\1')));
  CHECK(sum_of(cut.bytes()) == kSize);
  CHECK_NOTHROW(cut.check_intact());
  fs::resize_file(path, 3 * kPage);
  CHECK_NOTHROW(cut.check_intact());  // nothing that has gone was read yet
  int64_t sum = 0;
  std::thread([&] { sum = sum_of(cut.bytes()); }).join();
  CHECK(sum == 3 * kPage);
  CHECK_THROWS_WITH(cut.check_intact(),
                    Contains(path + " was cut from 40960 to 12288 bytes while it was being read"));
  CHECK(sum_of(cut.bytes().subspan(5 * kPage)) == 0);
  CHECK(sum_of(whole.bytes()) == kSize);
  CHECK_NOTHROW(whole.check_intact());
  // Written anew, too, what was read is not to be trusted.
  folder.write("data", std::string(kSize, '\1'));
  CHECK_THROWS_WITH(cut.check_intact(), Contains(path + " could not be read"));
}

TEST_CASE("mapped file: a place that was used again is another mapping's") {
  TempFolder folder;
  std::string path = folder.write("data", std::string(kSize, '\1'));
  {
    MappedFile cut(path);
    fs::resize_file(path, 0);
    CHECK(sum_of(cut.bytes()) == 0);
    CHECK_THROWS_AS(cut.check_intact(), Error);
  }
  MappedFile whole(folder.write("data", std::string(kSize, '\2')));
  CHECK(sum_of(whole.bytes()) == 2 * kSize);
  CHECK_NOTHROW(whole.check_intact());
}

TEST_CASE("mapped file: tells when it was changed") {
  TempFolder folder;
  std::string path = folder.write("data", "one");
  MappedFile file(path);
  CHECK(file.unchanged());
  fs::last_write_time(path, fs::last_write_time(path) + std::chrono::milliseconds(1));
  CHECK(!file.unchanged());
  file.accept_change();
  CHECK(file.unchanged());
  folder.write("new", "two");
  fs::rename(folder.path("new"), path);
  CHECK(file.unchanged());  // the one that is mapped lives on
  CHECK(std::string(file.bytes().data(), 3) == "one");
}

TEST_CASE("mapped file: a bus error elsewhere ends the process as ever") {
  TempFolder folder;
  MappedFile installs_the_handler(folder.write("data", "some"));
  pid_t child = fork();
  if (child == 0) {
    signal(SIGBUS, SIG_DFL);  // of a test framework's own
    MappedFile again(folder.path("data"));
    raise(SIGBUS);
    raise(SIGBUS);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGBUS);
}

TEST_CASE("mapped file: a tensor file cut while it is read is an error") {
  TempFolder folder;
  fs::path path = folder.path("t.safetensors");
  NamedTensor tensor{"t", Tensor::zeros({kSize}, DType::f32)};
  write_safetensors(path, std::span(&tensor, 1));
  SafetensorsFile file(path);
  fs::resize_file(path, kPage);
  CHECK_THROWS_WITH(file.read("t"), Contains("t.safetensors was cut"));
}
