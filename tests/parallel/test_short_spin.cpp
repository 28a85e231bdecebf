// The default for waiting threads in made-up environments; tests/apps looks at what libgomp takes.
#include <string>
#include <vector>

#include "parallel/short_spin.h"
#include "tests/support/catch.h"

using namespace adagate;

namespace {

class FakeEnvironment {
 public:
  explicit FakeEnvironment(std::vector<std::string> lines) : lines_(std::move(lines)) {
    for (auto& line : lines_) entries_.push_back(line.data());
    entries_.push_back(nullptr);
  }
  char** entries() { return entries_.data(); }
  std::vector<std::string> now() const {
    std::vector<std::string> all;
    for (char* entry : entries_)
      if (entry) all.emplace_back(entry);
    return all;
  }

 private:
  std::vector<std::string> lines_;
  std::vector<char*> entries_;
};

using Lines = std::vector<std::string>;

}  // namespace

TEST_CASE("short spin: a spare variable makes room, and comes back") {
  for (const Lines& lines : {Lines{"PATH=/bin", "_=/bin/adagate", "HOME=/root"},
                             Lines{"PATH=/bin", "HOME=/root"}, Lines{"HOSTNAME=box"}}) {
    FakeEnvironment environment(lines);
    lend_spin_count(environment.entries());
    int found = 0;
    for (const std::string& line : environment.now()) found += line.starts_with("GOMP_SPINCOUNT=");
    CHECK(found == 1);
    CHECK(environment.now().front() == (lines.size() == 1 ? environment.now()[0] : "PATH=/bin"));
    take_back_spin_count(environment.entries());
    CHECK(environment.now() == lines);
  }
}

TEST_CASE("short spin: it is found where the environment has been copied to") {
  FakeEnvironment environment({"_=/bin/adagate", "PATH=/bin"});
  lend_spin_count(environment.entries());
  std::vector<char*> copy = {environment.entries()[1], environment.entries()[0], nullptr};
  take_back_spin_count(copy.data());
  CHECK(std::string(copy[1]) == "_=/bin/adagate");
  CHECK(std::string(copy[0]) == "PATH=/bin");
}

TEST_CASE("short spin: the user's word, and variables that a library may need, are left alone") {
  for (const Lines& lines :
       {Lines{"_=x", "GOMP_SPINCOUNT=7"}, Lines{"_=x", "OMP_WAIT_POLICY=active"}, Lines{},
        Lines{"PATH=/bin", "OMP_NUM_THREADS=3", "HOMES=/home", "LD_LIBRARY_PATH=/lib"}}) {
    FakeEnvironment environment(lines);
    lend_spin_count(environment.entries());
    CHECK(environment.now() == lines);
    take_back_spin_count(environment.entries());
    CHECK(environment.now() == lines);
  }
}
