// adagate bench: kernels, MoE layer and communicator against the machine's limits.
#include <filesystem>
#include <fmt/ranges.h>
#include <fstream>
#include <memory>

#include "apps/commands.h"
#include "apps/options.h"
#include "apps/rank_options.h"
#include "apps/started_alike.h"
#include "bench/communicator_bench.h"
#include "bench/moe_bench.h"
#include "bench/overlap_bench.h"
#include "core/base/error.h"
#include "core/io/atomic_file.h"
#include "parallel/agree.h"
#include "parallel/mpi_session.h"
#include "parallel/placement.h"
#include "parallel/rank_device.h"

namespace adagate {
namespace fs = std::filesystem;
namespace {

struct Options {
  BenchOptions bench;
  std::vector<std::string> sections = {"kernels", "moe", "communicator"};
  std::string type, json, device = "auto";
  int64_t threads = 0;
  RankOptions ranks;
};

// Of tables that an earlier run of this command wrote, or nothing yet.
void check_json_file(const fs::path& path) {
  std::error_code error;
  bool regular = fs::is_regular_file(path, error);
  check(!regular || !fs::is_symlink(fs::symlink_status(path, error)),
        "--json {}: is a symbolic link; name the file itself", path.string());
  bool has_content = regular && fs::file_size(path, error) > 0;
  check(!has_content || is_bench_json(read_text_file(path, "file")),
        "--json {}: exists and holds no tables of adagate bench; name another file, or move it "
        "away",
        path.string());
  check(!fs::is_directory(path, error), "--json {}: is a directory; name a file in it",
        path.string());
}

void write_json(const fs::path& path, const std::string& text) {
  std::error_code error;
  if (!fs::exists(path, error) || fs::is_regular_file(path, error))
    return write_file_atomically(path, text);
  std::ofstream file(path);  // a pipe or a device
  file << text;
  file.close();
  check(!file.fail(), "{}: cannot be written", path.string());
}

std::vector<RankFact> facts_of(const Options& options) {
  const BenchOptions& b = options.bench;
  return {option("--section", fmt::format("{}", fmt::join(options.sections, ","))),
          option("--type", options.type),
          option("--device", options.device),
          option("--tokens", b.tokens),
          option("--context", b.context),
          option("--width", b.width),
          option("--hidden", b.hidden),
          option("--heads", b.heads),
          option("--vocabulary", b.vocabulary),
          option("--seconds", b.seconds),
          option("--rounds", b.rounds)};
}

int run(const Options& options) {
  configure_threads(static_cast<int>(options.threads));
  MpiSession session(start_options(options.ranks));
  check_started_alike(session, "bench", facts_of(options));
  RankDevice place = choose_rank_device(options.device, session.world());
  auto world = place.world;
  if (!options.json.empty()) on_all_ranks(*world, [&] { check_json_file(options.json); });
  BenchOptions bench = options.bench;
  bench.device = place.device;
  if (!options.type.empty()) bench.types = {options.type == "bf16" ? DType::bf16 : DType::f32};
  std::vector<BenchTable> tables;
  auto show = [&](BenchTable table) {
    if (world->rank() == 0) print_output(table.text() + "\n");
    tables.push_back(std::move(table));
  };
  for (const std::string& section : options.sections) {
    if (section == "kernels" && world->size() == 1) {
      MachinePeaks peaks = measure_peaks(bench.seconds, bench.device);
      show(table_of(peaks));
      show(bench_kernels(bench, peaks));
    } else if (section == "moe") {
      show(bench_moe(bench, world));
    } else if (section == "communicator" && world->size() > 1) {
      show(bench_communicator(*world, bench.rounds));
      show(bench_overlap(*world, bench));
    }
  }
  if (options.json.empty() || world->rank() > 0) return 0;
  write_json(options.json, to_json(tables));
  return 0;
}

}  // namespace

void add_bench_command(CLI::App& program, Invocation& invocation) {
  auto options = std::make_shared<Options>();
  BenchOptions& bench = options->bench;
  CLI::App* command = program.add_subcommand(
      "bench", "Measure kernels, the MoE layer and the communicator against the machine's limits");
  add_values(*command, "--section", options->sections,
             "What to measure, one or several with commas [all]; kernels on one rank, "
             "communicator on several",
             one_of({"kernels", "moe", "communicator"}))
      ->delimiter(',');
  add_value(*command, "--type", options->type, "Only this type; else both",
            one_of({"f32", "bf16"}));
  Constraint size = between(1, 1 << 30);
  add_value(*command, "--tokens", bench.tokens, "Tokens per rank", size);
  add_value(*command, "--context", bench.context, "Tokens per sequence", size);
  add_value(*command, "--width", bench.width, "Width of the model", size);
  add_value(*command, "--hidden", bench.hidden, "Width inside a feed-forward", size);
  add_value(*command, "--heads", bench.heads, "Attention heads", size);
  add_value(*command, "--vocabulary", bench.vocabulary, "Tokens in the vocabulary", size);
  add_value(*command, "--seconds", bench.seconds, "Time for each line", between(0.001, 60));
  add_value(*command, "--rounds", bench.rounds, "Runs of lines that ranks run together", size);
  add_device(*command, options->device);
  add_threads(*command, options->threads);
  add_value(*command, "--json", options->json, "Also write the tables to this file", a_path())
      ->type_name("FILE");
  add_rank_options(*command, options->ranks);
  command->footer(R"(Examples:
  adagate bench
  adagate bench --section moe --type bf16 --json moe.json
  mpirun -n 2 adagate bench --section moe,communicator)");
  command->callback([options, &invocation] {
    invocation.on_ranks = true;
    invocation.run = [options] { return run(*options); };
  });
}

}  // namespace adagate
