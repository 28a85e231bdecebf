#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_paths.h"
#include "train/kept_tokenizer.h"
#include "train/resume.h"

using namespace adagate;
namespace fs = std::filesystem;

TEST_CASE("kept tokenizer: what bears the name of its temporary folder is somebody else's") {
  std::string spec = source_path("tests/reference/fixtures/tokenizer.json");
  auto tokenizer = load_tokenizer(spec);
  std::string hash = hash_text(tokenizer->hash());
  TempFolder folder;
  fs::path run = folder.path() / "run", temporary = run / (".tokenizer-" + hash + ".tmp");
  fs::path elsewhere = folder.path() / "elsewhere";
  fs::create_directories(temporary);
  fs::create_directories(elsewhere);
  SECTION("a folder with a file of the user's") {
    folder.write("run/" + temporary.filename().string() + "/notes", "mine");
    keep_tokenizer(run, spec, *tokenizer);
    CHECK(fs::exists(temporary / "notes"));
    CHECK(std::distance(fs::directory_iterator(temporary), {}) == 1);
    CHECK_FALSE(fs::exists(kept_tokenizer(run, hash)));
  }
  SECTION("a link") {
    fs::remove(temporary);
    fs::create_directory_symlink(elsewhere, temporary);
    keep_tokenizer(run, spec, *tokenizer);
    CHECK(fs::is_symlink(temporary));
    CHECK(fs::is_empty(elsewhere));
    CHECK_FALSE(fs::exists(kept_tokenizer(run, hash)));
  }
  SECTION("what a killed run has left") {
    folder.write("run/" + temporary.filename().string() + "/tokenizer.json", "{");
    folder.write("run/" + temporary.filename().string() + "/tokenizer.json.tmp-12", "{");
    keep_tokenizer(run, spec, *tokenizer);
    CHECK_FALSE(fs::exists(temporary));
    CHECK(std::distance(fs::directory_iterator(kept_tokenizer(run, hash)), {}) == 1);
    CHECK(hash_text(load_tokenizer(kept_tokenizer(run, hash).string())->hash()) == hash);
  }
}
