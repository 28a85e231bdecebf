// What of a checkpoint folder is adagate's own, and that nothing else goes with it.
#include <map>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/error.h"
#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"
#include "train/run_directory.h"

namespace adagate {
namespace {

namespace fs = std::filesystem;

// Everything below a folder: what it is, and its content or where it points to.
std::map<std::string, std::string> listing(const fs::path& root) {
  std::map<std::string, std::string> found;
  for (auto& entry : fs::recursive_directory_iterator(root)) {
    std::string name = fs::relative(entry.path().parent_path(), root) / entry.path().filename();
    if (name.starts_with("./")) name.erase(0, 2);
    std::ifstream in(entry.path(), std::ios::binary);
    if (entry.is_symlink()) {
      found[name] = "-> " + fs::read_symlink(entry.path()).string();
    } else if (entry.is_directory()) {
      found[name] = "directory";
    } else {
      found[name] = {std::istreambuf_iterator<char>(in), {}};
    }
  }
  return found;
}

std::string write_checkpoint(const TempFolder& folder, const std::string& name) {
  folder.write(name + "/" + shard_name(0, 1), "shard of " + name);
  folder.write(name + "/manifest.json", "manifest of " + name);
  return folder.path(name);
}

std::vector<int64_t> steps_in(const fs::path& directory) {
  std::vector<int64_t> steps;
  for (auto& [step, path] : complete_checkpoints(directory)) steps.push_back(step);
  return steps;
}

// What others may keep beside checkpoints, and adagate must leave as it is.
void write_foreign(const TempFolder& folder) {
  for (const char* name : {"step-00000002-best", "step-best", "step-2", "step-000000002",
                           "Step-00000002", "step--0000002", "step-+0000002", ".step-2.tmp",
                           ".step-00000002.tmp.bak", ".step-00000002", "step-00000002.tmp"}) {
    write_checkpoint(folder, name);
  }
  folder.write("step-notes/README", "mine");
  folder.write(".step-notes/README", "mine");
  folder.write("step-00000003", "a file");
  folder.write(".step-00000003.tmp", "a file");
  folder.write("step-00000005/notes.txt", "mine");  // no manifest, and not ours
  folder.write("step-00000007/shard-00000-of-00001.safetensors", "half removed");
  folder.write("step-00000007/notes.txt", "with notes");
  fs::create_symlink("nowhere", folder.path("step-00000009"));
  fs::create_symlink("step-notes", folder.path("step-00000011"));
}

}  // namespace

TEST_CASE("run directory: names of checkpoints, exactly") {
  CHECK(step_in("step-00000002") == 2);
  CHECK(step_in(step_name(123456789012)) == 123456789012);
  for (const char* other :
       {"step-2", "step-000000002", "step-00000002-best", "step-", "step-0000000x", "step--0000002",
        ".step-00000002.tmp", "step-99999999999999999999"}) {
    INFO(other);
    CHECK_FALSE(step_in(other));
  }
}

TEST_CASE("run directory: cleaning and rotation leave what isn't adagate's as it is") {
  TempFolder folder;
  write_foreign(folder);
  auto foreign = listing(folder.path());
  for (int64_t step : {2, 4, 6}) write_checkpoint(folder, step_name(step));
  write_checkpoint(folder, half_written_name(8));
  folder.write(half_written_name(10) + "/manifest.json.tmp-17", "a kill while it was written");
  folder.write(step_name(12) + "/" + shard_name(3, 4), "half removed");
  fs::create_directory(folder.path(step_name(14)));
  clean_checkpoints(folder.path());
  CHECK(steps_in(folder.path()) == std::vector<int64_t>{2, 4, 6});
  rotate_checkpoints(folder.path(), 1, folder.path(step_name(6)));
  CHECK(steps_in(folder.path()) == std::vector<int64_t>{6});
  remove_checkpoint(folder.path(step_name(6)));
  CHECK(listing(folder.path()) == foreign);
}

TEST_CASE("run directory: of a checkpoint with the user's files only its own go") {
  TempFolder folder;
  std::string path = write_checkpoint(folder, step_name(2));
  folder.write(step_name(2) + "/notes.txt", "mine");
  folder.write(step_name(2) + "/shard-00000-of-00001.safetensors.bak", "mine");
  folder.write(step_name(2) + "/plots/loss.svg", "mine");
  folder.write("outside", "untouched");
  fs::create_symlink("../outside", path + "/" + shard_name(7, 9));  // moved, and a link left for it
  remove_checkpoint(path);
  CHECK(listing(folder.path()) ==
        std::map<std::string, std::string>{
            {"outside", "untouched"},
            {"step-00000002", "directory"},
            {"step-00000002/notes.txt", "mine"},
            {"step-00000002/shard-00000-of-00001.safetensors.bak", "mine"},
            {"step-00000002/plots", "directory"},
            {"step-00000002/plots/loss.svg", "mine"}});
}

TEST_CASE("run directory: temporaries that a kill left go, by exact name") {
  TempFolder folder;
  const std::string text = "cache/text-0123456789abcdef-fedcba9876543210.tokens";
  for (const char* name : {"notes.tmp-12", "config.yaml.tmp-x", "config.yaml.tmp-", "config.yaml",
                           "cache/mine.tokens.tmp-12", "cache/config.yaml.tmp-12"}) {
    folder.write(name, "mine");
  }
  folder.write(text, "whole");
  auto before = listing(folder.path());
  for (const std::string& name : {std::string("config.yaml.tmp-12"),
                                  std::string("metrics.jsonl.tmp-12-2"), text + ".tmp-345"}) {
    folder.write(name, "half written");
  }
  clean_temporaries(folder.path());
  CHECK(listing(folder.path()) == before);
}

TEST_CASE("run directory: a link to a checkpoint is one, and only the link is removed") {
  TempFolder folder;
  write_checkpoint(folder, "a/" + step_name(4));
  auto linked = listing(folder.path());
  fs::path b = folder.path() / "b";
  write_checkpoint(folder, "b/" + step_name(6));
  fs::create_symlink("../a/step-00000004", b / step_name(4));
  fs::create_directory_symlink("../a/step-00000004", b / half_written_name(5));
  CHECK(find_latest(b, 6) == b / step_name(4));
  clean_checkpoints(b);
  CHECK_FALSE(fs::exists(fs::symlink_status(b / half_written_name(5))));
  rotate_checkpoints(b, 1, b / step_name(6));
  CHECK(steps_in(b) == std::vector<int64_t>{6});

  // Saving the same step again takes the link's place.
  fs::create_symlink("../a/step-00000004", b / step_name(4));
  write_checkpoint(folder, "b/" + half_written_name(4));
  put_in_place(b / half_written_name(4), b / step_name(4));
  CHECK_FALSE(fs::is_symlink(b / step_name(4)));
  CHECK(steps_in(b) == std::vector<int64_t>{4, 6});
  CHECK(std::distance(fs::directory_iterator(b), {}) == 2);
  fs::remove_all(b);
  CHECK(listing(folder.path()) == linked);
}

TEST_CASE("run directory: a folder of checkpoints behind a link loses nothing") {
  TempFolder folder;
  for (int64_t step : {2, 4}) write_checkpoint(folder, "a/" + step_name(step));
  write_checkpoint(folder, "a/" + half_written_name(6));
  fs::create_directory_symlink("a", folder.path("link"));
  auto before = listing(folder.path());
  clean_checkpoints(folder.path("link"));
  rotate_checkpoints(folder.path("link"), 1, folder.path("link/" + step_name(4)));
  CHECK(listing(folder.path()) == before);
  CHECK_THROWS_WITH(check_checkpoint_names(folder.path("link"), 0),
                    Catch::Contains(folder.path("link")) && Catch::Contains("symbolic link"));
}

TEST_CASE("run directory: what the user keeps in a checkpoint is in the one that replaces it") {
  TempFolder folder;
  for (const std::string& old : {step_name(4), step_name(6)}) {
    folder.write(old + "/notes.txt", "mine");
    folder.write(old + "/plots/loss.svg", "mine");
  }
  write_checkpoint(folder, step_name(4));
  folder.write(step_name(4) + "/" + shard_name(1, 2), "of another number of ranks");
  for (int64_t step : {4, 6}) {
    std::string half = write_checkpoint(folder, half_written_name(step));
    put_in_place(half, folder.path(step_name(step)));
    CHECK(folder.read(step_name(step) + "/manifest.json") ==
          "manifest of " + half_written_name(step));
    CHECK(folder.read(step_name(step) + "/notes.txt") == "mine");
    CHECK(folder.read(step_name(step) + "/plots/loss.svg") == "mine");
    CHECK_FALSE(fs::exists(folder.path(step_name(step)) + "/" + shard_name(1, 2)));
    CHECK_FALSE(fs::exists(half));
  }
  // A kill before the notes were in the new one: they get there later.
  folder.write(half_written_name(4) + "/more.txt", "mine");
  clean_checkpoints(folder.path());
  CHECK(folder.read(step_name(4) + "/more.txt") == "mine");
  CHECK_FALSE(fs::exists(folder.path(half_written_name(4))));
}

TEST_CASE("run directory: what has a checkpoint's name and is none is in the way, by name") {
  TempFolder folder;
  write_foreign(folder);
  auto foreign = listing(folder.path());
  auto in_the_way = [&](int64_t step) {
    std::string message;
    try {
      check_checkpoint_names(folder.path(), step, step);
    } catch (const Error& e) {
      message = e.what();
    }
    return message;
  };
  for (int64_t step : {1, 2, 4, 5, 6, 7, 8, 10}) {  // a directory without a manifest can be filled
    INFO("step " << step);
    CHECK(in_the_way(step).empty());
  }
  for (int64_t step : {3, 9, 11}) {
    INFO("step " << step);
    CHECK_THAT(in_the_way(step),
               Catch::Contains(fmt::format("step-{:08}", step)) && Catch::Contains("move it away"));
    std::string half = write_checkpoint(folder, half_written_name(12));
    CHECK_THROWS_WITH(put_in_place(half, folder.path(step_name(step))),
                      Catch::Contains(step_name(step)));
    fs::remove_all(half);
  }
  CHECK_THROWS_WITH(make_half_written(folder.path(), 3), Catch::Contains("in the way"));
  CHECK(listing(folder.path()) == foreign);
}

}  // namespace adagate
