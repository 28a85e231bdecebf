// Paths as users write them.
#include <pwd.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/io/path_text.h"
#include "tests/support/catch.h"
#include "tests/support/environment.h"

using namespace adagate;

TEST_CASE("paths: ~ and variables stand for what they do in a shell") {
  Variable home("HOME", "/home/me"), one("PATH_TEST_ONE", "/one"), two("PATH_TEST_2", "$HOME ~");
  for (auto [written, path] : std::initializer_list<std::pair<const char*, const char*>>{
           {"", ""},
           {"runs/x", "runs/x"},
           {"~", "/home/me"},
           {"~/", "/home/me/"},
           {"~/runs/x", "/home/me/runs/x"},
           {"./~", "./~"},
           {"./~/x", "./~/x"},
           {"a~/~b", "a~/~b"},
           {"${PATH_TEST_ONE}/x", "/one/x"},
           {"$PATH_TEST_ONE/x", "/one/x"},
           {"x/${PATH_TEST_ONE}y$PATH_TEST_ONE", "x//oney/one"},
           {"~/$PATH_TEST_ONE", "/home/me//one"},
           {"$PATH_TEST_2", "$HOME ~"},  // a value is taken as it is
           {"$$HOME", "$HOME"},
           {"$$$$", "$$"},
           {"$$$PATH_TEST_ONE", "$/one"},
           {"price $5", "price $5"},
           {"a$", "a$"},
           {"$/x", "$/x"},
           {"$-", "$-"},
           {"byte", "byte"},
       }) {
    CAPTURE(written);
    CHECK(expand_path(written) == path);
  }
  const passwd* me = getpwuid(getuid());
  if (me)
    CHECK(expand_path(std::string("~") + me->pw_name + "/x") == me->pw_dir + std::string("/x"));
  Variable no_home("HOME", nullptr);
  if (me) CHECK(expand_path("~/x") == me->pw_dir + std::string("/x"));
}

TEST_CASE("paths: what stands for nothing is refused") {
  Variable none("PATH_TEST_NONE", nullptr), empty("PATH_TEST_EMPTY", "");
  std::string unset =
      "the environment variable PATH_TEST_NONE is not set; $$ stands for the character $";
  std::string brace =
      "${ is not followed by the name of a variable and }; $$ stands for the character $";
  for (const auto& [written, message] : std::vector<std::pair<std::string, std::string>>{
           {"${PATH_TEST_NONE}/x", unset},
           {"$PATH_TEST_NONE", unset},
           {"x/$PATH_TEST_NONE.y", unset},
           {"${PATH_TEST_EMPTY}/x", "the environment variable PATH_TEST_EMPTY is empty"},
           {"${PATH_TEST_NONE", brace},
           {"${}", brace},
           {"${1}", brace},
           {"${PATH_TEST_NONE:-x}", brace},
           {"~no-such-user/x",
            "~no-such-user is the home directory of a user, but no user has that name; a file "
            "that is called so is written ./~no-such-user"},
       }) {
    CAPTURE(written);
    CHECK_THROWS_WITH(expand_path(written), message);
  }
}

TEST_CASE("paths: any path can be written") {
  Variable home("HOME", "/home/me");
  for (std::string path : {"x", "~", "~/x", "~me", "$HOME", "${HOME}", "a$b", "$$", "$", "a$$$"}) {
    CAPTURE(path);
    std::string back = expand_path(path_as_written(path));
    CHECK(back == (path[0] == '~' ? "./" + path : path));
  }
}
