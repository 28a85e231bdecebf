#include <atomic>
#include <chrono>
#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <pthread.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

#include "core/base/error.h"
#include "core/io/atomic_file.h"
#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"

using namespace adagate;
namespace fs = std::filesystem;

namespace {

// A pipe in the place where AtomicFile writes before it renames: it takes little at a time, and
// cannot be brought to disk.
class PipeInPlaceOf {
 public:
  explicit PipeInPlaceOf(const fs::path& path)
      : pipe_(path.string() + ".tmp-" + std::to_string(getpid())) {
    REQUIRE(mkfifo(pipe_.c_str(), 0600) == 0);
    reader_ = open(pipe_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    REQUIRE(reader_ >= 0);
  }
  ~PipeInPlaceOf() { close(reader_); }
  PipeInPlaceOf(const PipeInPlaceOf&) = delete;
  PipeInPlaceOf& operator=(const PipeInPlaceOf&) = delete;

  int reader() const { return reader_; }

 private:
  std::string pipe_;
  int reader_;
};

// Signals that interrupt a system call and do nothing else.
class Interruptions {
 public:
  Interruptions() {
    struct sigaction quiet = {};
    quiet.sa_handler = [](int) {};  // without SA_RESTART
    sigaction(SIGUSR1, &quiet, &before_);
  }
  ~Interruptions() { sigaction(SIGUSR1, &before_, nullptr); }
  Interruptions(const Interruptions&) = delete;
  Interruptions& operator=(const Interruptions&) = delete;

 private:
  struct sigaction before_ = {};
};

}  // namespace

TEST_CASE("atomic file: an abandoned write leaves the old content") {
  TempFolder folder;
  fs::path path = folder.path("text");
  write_file_atomically(path, "old");
  {
    AtomicFile file(path);
    file.write("new");
  }
  CHECK(folder.read("text") == "old");
  CHECK(std::distance(fs::directory_iterator(folder.path()), {}) == 1);
  CHECK_THROWS_AS(AtomicFile(path / "below_a_file"), Error);
  CHECK_THROWS_AS(read_text_file(folder.path(), "config"), Error);
  CHECK_THROWS_AS(MappedFile(folder.path()), Error);
}

TEST_CASE("atomic file: a write that the system cuts short goes on where it stopped") {
  TempFolder folder;
  PipeInPlaceOf pipe(folder.path("data"));
  Interruptions interruptions;
  std::string sent(300'000, '\0'), received;
  for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>(i % 251);
  std::string error;
  std::atomic<bool> done = false;
  std::thread writer([&] {
    try {
      AtomicFile file(folder.path("data"));
      file.write(sent);
    } catch (const Error& e) {
      error = e.what();
    }
    done = true;
  });
  char piece[7'000];
  for (bool last = false; !last;) {
    const bool closed = done;
    // By now the pipe is full: the signal ends a write of which a part is done.
    std::this_thread::sleep_for(std::chrono::microseconds(500));
    pthread_kill(writer.native_handle(), SIGUSR1);
    const ssize_t n = read(pipe.reader(), piece, sizeof(piece));
    if (n > 0) received.append(piece, static_cast<size_t>(n));
    last = closed && n <= 0;
  }
  writer.join();
  CHECK(error.empty());
  CHECK(received.size() == sent.size());
  const bool same = received == sent;  // a failure must not print them
  CHECK(same);
}

TEST_CASE("atomic file: what can't be brought to disk is not committed") {
  TempFolder folder;
  write_file_atomically(folder.path("text"), "old");
  {
    PipeInPlaceOf pipe(folder.path("text"));  // refuses fsync
    AtomicFile file(folder.path("text"));
    file.write("new");
    CHECK_THROWS_WITH(file.commit(), Catch::Contains("can't write " + folder.path("text")));
  }
  CHECK(fs::is_regular_file(folder.path("text")));
  CHECK(folder.read("text") == "old");
}
