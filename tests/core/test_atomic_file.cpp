#include <atomic>
#include <chrono>
#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <optional>
#include <pthread.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

#include "core/base/error.h"
#include "core/io/atomic_file.h"
#include "core/io/mapped_file.h"
#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"

using namespace adagate;
namespace fs = std::filesystem;

namespace {

// An atomic file behind whose back its file is a pipe: it takes little at a time, and cannot be
// brought to disk.
class AtomicPipe {
 public:
  explicit AtomicPipe(const fs::path& path) {
    int fd = open("/dev/null", O_RDONLY);  // the lowest that is free: the next file's
    close(fd);
    file_.emplace(path);
    int ends[2];
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    reader_ = ends[0];
    fcntl(reader_, F_SETFL, O_NONBLOCK);
    REQUIRE(dup2(ends[1], fd) == fd);
    close(ends[1]);
  }
  ~AtomicPipe() { close(reader_); }
  AtomicPipe(const AtomicPipe&) = delete;
  AtomicPipe& operator=(const AtomicPipe&) = delete;

  AtomicFile& file() { return *file_; }
  void close_file() { file_.reset(); }
  int reader() const { return reader_; }

 private:
  std::optional<AtomicFile> file_;
  int reader_ = -1;
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
  AtomicPipe pipe(folder.path("data"));
  Interruptions interruptions;
  std::string sent(300'000, '\0'), received;
  for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>(i % 251);
  std::string error;
  std::atomic<bool> done = false;
  std::thread writer([&] {
    try {
      pipe.file().write(sent);
    } catch (const Error& e) {
      error = e.what();
    }
    pipe.close_file();
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
    AtomicPipe pipe(folder.path("text"));  // refuses fsync
    pipe.file().write("new");
    CHECK_THROWS_WITH(pipe.file().commit(), Catch::Contains("can't write " + folder.path("text")));
  }
  CHECK(fs::is_regular_file(folder.path("text")));
  CHECK(folder.read("text") == "old");
}

TEST_CASE("atomic file: a temporary's name that is taken is left to whoever has it") {
  TempFolder folder;
  const std::string taken = "text.tmp-" + std::to_string(getpid());
  folder.write(taken, "mine");
  folder.write("target", "untouched");
  fs::create_symlink("target", folder.path(taken + "-2"));
  write_file_atomically(folder.path("text"), "new");
  {
    AtomicFile abandoned(folder.path("text"));
    abandoned.write("newer");
  }
  CHECK(folder.read("text") == "new");
  CHECK(folder.read(taken) == "mine");
  CHECK(fs::is_symlink(folder.path(taken + "-2")));
  CHECK(folder.read("target") == "untouched");
  CHECK(std::distance(fs::directory_iterator(folder.path()), {}) == 4);
}

TEST_CASE("atomic file: names of temporaries, and of nothing else") {
  CHECK(final_name("config.yaml.tmp-12") == "config.yaml");
  CHECK(final_name("a.tmp-1.tmp-12-3") == "a.tmp-1");
  for (const char* other : {"config.yaml", "config.yaml.tmp-", "config.yaml.tmp-1x", ".tmp-12",
                            "config.yaml.tmp-12-", "config.yaml.tmp-12-3-4", "tmp-12"}) {
    INFO(other);
    CHECK_FALSE(final_name(other));
  }
}

TEST_CASE("directories: those that were made are told, and none stays when one can't be") {
  TempFolder folder;
  fs::path root = folder.path();
  CHECK(make_directories(root / "a/b") == std::vector<fs::path>{root / "a", root / "a/b"});
  CHECK(make_directories(root / "a/b").empty());
  CHECK(make_directories(root / "a/c/") == std::vector<fs::path>{root / "a/c"});
  folder.write("file", "x");
  fs::create_symlink("nowhere", folder.path("dangling"));
  for (fs::path bad : {root / "file", root / "file/below", root / "dangling",
                       root / "new" / std::string(300, 'x')}) {
    INFO(bad);
    CHECK_THROWS_AS(make_directories(bad), Error);
  }
  CHECK_FALSE(fs::exists(root / "new"));
  CHECK(fs::is_symlink(root / "dangling"));
}
