"""Each check must catch a planted violation, and must let a clean tree pass."""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"


class Tree:
    """A scratch tree of {path: text}, as a context."""

    def __init__(self, files):
        self.files = files

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        root = pathlib.Path(self.folder.name)
        for name, text in self.files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        return root

    def __exit__(self, *error):
        self.folder.cleanup()


def run(command, **environment):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False,
                            env={**os.environ, **environment})
    return result.returncode, result.stdout + result.stderr


PAGE = "# page\n<!-- layering table: begin -->\n<!-- layering table: end -->\n"
CLEAN = {
    "docs/architecture.md": PAGE,
    "core/base/error.h": "#include <string>\n",
    "core/tensor/tensor.h": '#include "core/base/error.h"\n',
    "core/ops/cpu/gelu.cpp": '#include "core/tensor/tensor.h"\n#include <Eigen/Core>\n',
    "layers/linear.h": '#include "core/tensor/tensor.h"\n',
    "parallel/communicator.h": '#include "core/base/error.h"\n',
    "parallel/mpi_communicator.cpp": '#include <mpi.h>\n',
    "moe/layer.h": '#include "layers/linear.h"\n#include "parallel/communicator.h"\n',
    "train/trainer.h": '#include "moe/layer.h"\n',
    "tests/support/near.h": "",
    "tests/moe/test_layer.cpp": '#include "moe/layer.h"\n#include "tests/support/near.h"\n',
}


class Layering(unittest.TestCase):
    def check(self, extra):
        with Tree({**CLEAN, **extra}) as root:
            run([sys.executable, SCRIPTS / "check_layering.py", "--root", root, "--write-docs"])
            return run([sys.executable, SCRIPTS / "check_layering.py", "--root", root])

    def expect_caught(self, name, text, line=1):
        status, output = self.check({name: text})
        self.assertEqual(status, 1, output)
        self.assertIn(f"{name}:{line}: ", output)
        self.assertIn("1 problems", output)

    def test_clean_tree_passes(self):
        status, output = self.check({})
        self.assertEqual(status, 0, output)

    def test_include_of_a_higher_folder(self):
        self.expect_caught("layers/bad.h", '// two lines\n#include "moe/layer.h"\n', line=2)

    def test_include_of_a_sibling(self):
        self.expect_caught("layers/bad.cpp", '#include "parallel/communicator.h"\n')

    def test_moe_sees_only_two_headers_of_parallel(self):
        status, output = self.check({"parallel/reducer.h": "",
                                     "moe/bad.h": '#include "parallel/reducer.h"\n'})
        self.assertEqual(status, 1)
        self.assertIn("moe/bad.h:1: parallel/reducer.h", output)

    def test_forward_declaration_of_a_higher_folder(self):
        higher = {"moe/step.h": "class RoutingStep final : public Sink {\n",
                  "layers/sink.h": "class Sink {\n"}
        status, output = self.check({**higher, "layers/bad.h": "class Sink;\nclass RoutingStep;\n"})
        self.assertEqual(status, 1, output)
        self.assertIn("layers/bad.h:2: RoutingStep of moe/step.h: layers may include only", output)
        self.assertIn("1 problems", output)
        good = {"train/good.h": "class RoutingStep;\nclass Sink;\nclass Elsewhere;\n"}
        self.assertEqual(self.check({**higher, **good})[0], 0)

    def test_order_inside_core(self):
        self.expect_caught("core/base/bad.h", '#  include "core/tensor/tensor.h"\n')

    def test_neighbours_on_one_level_of_core(self):
        status, output = self.check({"core/ops/op.h": "",
                                     "core/autograd/bad.h": '#include "core/ops/op.h"\n'})
        self.assertEqual(status, 1)
        self.assertIn("core/autograd may not include core/ops", output)

    def test_unknown_folder_of_core(self):
        self.expect_caught("core/misc/bad.h", '#include "core/base/error.h"\n')

    def test_seams(self):
        self.expect_caught("train/bad.cpp", "#include <mpi.h>\n")
        self.expect_caught("moe/bad.cpp", "#include <cuda_runtime.h>\n")
        self.expect_caught("layers/bad.cpp", "#include <Eigen/Core>\n")

    def test_missing_file_and_relative_path(self):
        self.expect_caught("core/base/bad.h", '#include "core/base/nothing.h"\n')
        self.expect_caught("core/base/bad.h", '#include "error.h"\n')

    def test_howto_tree_stands_for_the_project(self):
        files = {"tests/howto/core/ops/new.h": '#include "core/base/error.h"\n',
                 "tests/howto/core/ops/new.cpp": '#include "core/ops/new.h"\n'}
        self.assertEqual(self.check(files)[0], 0)
        files["tests/howto/core/ops/new.h"] = '#include "layers/linear.h"\n'
        self.assertEqual(self.check(files)[0], 1)

    def test_test_reaching_above_its_mirror(self):
        self.expect_caught("tests/core/test_bad.cpp", '#include "moe/layer.h"\n')

    def test_stale_page(self):
        with Tree(CLEAN) as root:
            status, output = run([sys.executable, SCRIPTS / "check_layering.py", "--root", root])
        self.assertEqual(status, 1)
        self.assertIn("out of date", output)


class Size(unittest.TestCase):
    def check(self, name, text):
        with Tree({name: text}) as root:
            return run([sys.executable, SCRIPTS / "check_size.py", "--root", root])

    @staticmethod
    def function(head, lines):
        return head + " {\n" + "  step();\n" * (lines - 2) + "}\n"

    def expect(self, name, text, problem=None):
        status, output = self.check(name, text)
        self.assertEqual(status, 1 if problem else 0, output)
        if problem:
            self.assertIn(problem, output)

    def test_long_file(self):
        self.expect("a.cpp", "int x;\n" * 600)
        self.expect("a.cpp", "int x;\n" * 601, "a.cpp:1: 601 lines")

    def test_long_line(self):
        self.expect("a.h", "x" * 100 + "\n")
        self.expect("a.h", "\n" + "x" * 101 + "\n", "a.h:2: 101 columns")
        self.expect("notes.md", "x" * 300 + "\n")

    def test_long_function(self):
        self.expect("a.cpp", self.function("int run(int a)", 80))
        self.expect("a.cpp", "\n" + self.function("int run(int a)", 81), "a.cpp:2: function of 81")

    def test_kernels_may_be_longer(self):
        self.expect("core/ops/cpu/a.cpp", self.function("void kernel()", 120))
        self.expect("core/ops/cpu/a.cpp", self.function("void kernel()", 121), "function of 121")

    def test_functions_in_scopes(self):
        long = self.function("void f() const", 81)
        self.expect("a.h", "namespace a::b {\nclass C {\n public:\n" + long + "};\n}\n", "a.h:4")
        head = "C::C(int n)\n    : size_{n}, names_{\"}\", '{'}"
        self.expect("a.cpp", "namespace {\n" + self.function(head, 80) + "}\n", "a.cpp:2")
        self.expect("a.cpp", self.function("template <class T>\nauto f(T x) -> T", 80), "a.cpp:1")
        self.expect("a.cpp", self.function('TEST_CASE("one {")', 81), "a.cpp:1")

    def test_what_is_no_function(self):
        rows = "constexpr Row kRows[] = {\n" + "    {1, f(2)},\n" * 100 + "};\n"
        self.expect("a.cpp", rows)
        many = "namespace a {\n" + "int f(int x) { return x; }\n" * 100 + "}\n"
        self.expect("a.cpp", many)

    def test_long_python_function(self):
        self.expect("a.py", "def f():\n" + "    pass\n" * 80, "a.py:1: function of 81")


class Format(unittest.TestCase):
    def test_catches_misformatted_code(self):
        style = (ROOT / ".clang-format").read_text(encoding="utf-8")
        for text, wanted in (("int f() { return 1; }\n", 1), ("int f();\n", 0)):
            files = {".clang-format": style, "core/a.h": text, "apps/b.cpp": "int g();\n"}
            with Tree(files) as root:
                status, output = run([SCRIPTS / "check_format.sh"], ADAGATE_CHECK_ROOT=str(root))
            if "skipped" in output:
                self.skipTest("clang-format 14 is not installed")
            self.assertEqual(status != 0, bool(wanted), output)


class Howto(unittest.TestCase):
    CODE = "int a();\n\nvoid f() {\n  // [part]\n  if (a())\n    b();\n  // [end]\n}\n"

    def check(self, page, *options):
        with Tree({"docs/howto/page.md": page, "tests/howto/a.cpp": self.CODE}) as root:
            status, output = run([sys.executable, SCRIPTS / "check_howto.py", "--root", root,
                                  *options])
            return status, output, (root / "docs/howto/page.md").read_text(encoding="utf-8")

    def test_region_and_whole_file(self):
        page = "text\n<!-- code: tests/howto/a.cpp#part -->\n```cpp\n```\n"
        status, output, _ = self.check(page)
        self.assertEqual(status, 1)
        self.assertIn("docs/howto/page.md:2: differs", output)
        _, _, written = self.check(page, "--write")
        self.assertIn("```cpp\nif (a())\n  b();\n```", written)
        self.assertEqual(self.check(written)[0], 0)
        whole = f"<!-- code: tests/howto/a.cpp -->\n```cpp\n{self.CODE}```\n"
        self.assertEqual(self.check(whole)[0], 0)
        self.assertEqual(self.check(whole.replace("b()", "c()"))[0], 1)

    def test_unbound_and_dangling_blocks(self):
        for page, message in (("```cpp\nint x;\n```\n", "page.md:1: C++ that no test compiles"),
                              ("<!-- code: tests/b.cpp -->\n```cpp\n```\n", "does not exist"),
                              ("<!-- code: tests/howto/a.cpp#no -->\n```cpp\n```\n", "no region")):
            status, output, _ = self.check(page)
            self.assertEqual(status, 1)
            self.assertIn(message, output)


class Headers(unittest.TestCase):
    PROJECT = f"""cmake_minimum_required(VERSION 3.25)
project(scratch LANGUAGES CXX)
include({ROOT}/cmake/AdagateHeaderCheck.cmake)
adagate_add_header_check(headers FOLDERS core)
"""

    def build(self, files):
        with Tree({"CMakeLists.txt": self.PROJECT, **files}) as root:
            status, output = run(["cmake", "-G", "Ninja", "-S", root, "-B", root / "build"])
            self.assertEqual(status, 0, output)
            return run(["cmake", "--build", root / "build", "--target", "headers"])

    def test_header_that_leans_on_others(self):
        status, output = self.build({
            "core/good.h": "#pragma once\n#include <string>\ninline std::string f();\n",
            "core/bad.h": "#pragma once\ninline std::string g();\n",
            "core/shown.h": "#pragma once\nint h();\n",
            "core/shown.cpp": '#include "core/shown.h"\n'})
        self.assertNotEqual(status, 0, output)
        self.assertIn("core/bad.h:2", output)
        self.assertNotIn("core__shown.h", output)
        self.assertNotIn("core/good.h:", output)


class Installer(unittest.TestCase):
    def test_refuses_unknown_option(self):
        status, output = run([SCRIPTS / "install_deps.sh", "--bogus"])
        self.assertEqual(status, 1)
        self.assertIn("unknown option --bogus", output)

    def test_says_what_to_do_without_apt(self):
        tools = {name: next(p for p in ("/bin/" + name, "/usr/bin/" + name) if os.path.exists(p))
                 for name in ("bash", "dirname", "cat", "env")}
        with Tree({}) as root:
            for name, path in tools.items():
                (root / name).symlink_to(path)
            status, output = run(["/bin/bash", SCRIPTS / "install_deps.sh"], PATH=str(root))
        self.assertEqual(status, 1, output)
        self.assertIn("has no apt", output)
        self.assertIn("libopenmpi-dev", output)


class Faults(unittest.TestCase):
    def test_names_faults_that_no_longer_fit(self):
        sys.path.insert(0, str(SCRIPTS))
        from mutation_test import FAULTS, stale_faults  # pylint: disable=import-outside-toplevel
        fault = FAULTS[0]
        for text, count in ((fault.find, 1), ("", 0), (fault.find * 2, 2)):
            with Tree({fault.file: text}) as root:
                messages = list(stale_faults([fault], root))
            self.assertEqual(len(messages), count != 1)
            if messages:
                self.assertIn(f"occurs {count} times in {fault.file}", messages[0])


class QuickstartReport(unittest.TestCase):
    def report(self, loss):
        lines = '{"step": 1, "loss": 5.5}\n{"step": 1, "validation_loss": %s}\n' % loss
        with Tree({"metrics.jsonl": lines, "text.txt": "abcdefgh" * 9}) as root:
            return run(["bash", SCRIPTS / "quickstart_report.sh", root / "metrics.jsonl",
                        root / "text.txt"])

    def test_loss_must_be_clearly_below_the_entropy(self):
        status, output = self.report(1.5)  # the entropy of eight equal letters is log 8 = 2.079
        self.assertEqual(status, 0, output)
        self.assertIn("2.079 nats", output)
        for loss in (1.7, 2.0, 9.0, "NaN", "null"):
            self.assertEqual(self.report(loss)[0], 1)


class CompareRuns(unittest.TestCase):
    STEP = {"step": 1, "consumed_tokens": 64, "loss": 2.0, "seconds": 0.5, "flops": 1e9,
            "skipped": False, "single_expert_share": 0.25, "experts_per_token": 1.75,
            "moe": [{"single_expert_share": 0.25, "bytes_sent": 0}], "time": {"data": 0.1}}

    def compare(self, runs, *options):
        texts = {f"{name}/metrics.jsonl": text if isinstance(text, str) else
                 "".join(json.dumps(line) + "\n" for line in text)
                 for name, text in runs.items()}
        with Tree(texts) as root:
            folders = [root / name for name in runs]
            return run([sys.executable, SCRIPTS / "compare_runs.py", *folders, *options])

    def test_a_diverged_run(self):
        good = [self.STEP, {"step": 1, "validation_loss": 2.0, "validation_perplexity": 7.39}]
        bad = [{**self.STEP, "loss": None, "skipped": True, "single_expert_share": None,
                "experts_per_token": None, "moe": [{"single_expert_share": None}]}] * 2
        status, output = self.compare({"good": good, "bad": bad})
        self.assertEqual(status, 0, output)
        self.assertIn("| steps skipped: loss or gradient not finite | 0 | 2 |", output)
        self.assertIn("| validation perplexity | 7.39 | - |", output)
        self.assertIn("| training loss, last tenth | 2.0000 | - |", output)
        self.assertIn("| single-expert tokens, first step to last tenth | "
                      "25.0 % to 25.0 % | - to - |", output)
        nan = json.dumps({**self.STEP, "loss": float("nan")}) + "\n"
        self.assertIn("| training loss, last tenth | - |", self.compare({"nan": nan})[1])
        figures = json.loads(self.compare({"nan": nan}, "--json")[1])
        self.assertIsNone(figures[0]["training loss"])

    def test_lines_of_other_kinds_and_torn_ones(self):
        other = [{"type": "start"}, {"type": "resume", "step": 0, "loss": 1},
                 {**self.STEP, "type": "step"}, {"type": "end"}, 7]
        text = "".join(json.dumps(line) + "\n" for line in other) + '{"step": 2, "lo'
        status, output = self.compare({"run": text})
        self.assertEqual(status, 0, output)
        self.assertIn("| steps, tokens | 1, 64 |", output)
        dense = {k: v for k, v in self.STEP.items() if k not in ("moe", "single_expert_share")}
        self.assertEqual(self.compare({"run": [dense, {**self.STEP, "moe": []}]})[0], 0)
        for text, message in (("", "has no steps yet"),
                              ("x\n" + text, "metrics.jsonl:1: is no JSON")):
            status, output = self.compare({"run": text})
            self.assertEqual(status, 1)
            self.assertIn(message, output)

    def test_each_run_has_a_label_of_its_own(self):
        steps = [self.STEP]
        self.assertIn("| one/run | two/run |",
                      self.compare({"one/run": steps, "two/run": steps})[1])
        self.assertIn("| a | b |", self.compare({"x/a": steps, "x/b": steps})[1])
        self.assertIn("| a (1) | a (2) |", self.compare({"a": steps, "./a": steps})[1])


class Dependencies(unittest.TestCase):
    # What a source includes of each library that CMake asks for.
    HEADERS = {"Threads": "<thread>", "MPI": "<mpi.h>", "Eigen3": "<Eigen/",
               "yaml-cpp": "<yaml-cpp/", "CLI11": "<CLI/", "fmt": "<fmt/", "spdlog": "<spdlog/",
               "OpenMP": "<omp.h>", "nlohmann_json": "<nlohmann/", "libxxhash": "<xxhash.h>",
               "OneDnn": "<oneapi/dnnl/", "ZLIB": "<zlib.h>", "libzstd": "<zstd.h>"}

    def test_each_is_included_by_a_source(self):
        wanted = set()
        for name in ("cmake/AdagateDependencies.cmake", "cmake/adagateConfig.cmake.in"):
            text = (ROOT / name).read_text(encoding="utf-8")
            wanted |= set(re.findall(r"find_(?:package|dependency)\((\S+?)[ )]", text))
            wanted |= set(re.findall(r"IMPORTED_TARGET (\S+?)\)", text))
        wanted.remove("PkgConfig")
        sources = "".join(
            path.read_text(encoding="utf-8") for folder in
            ("core", "parallel", "data", "layers", "moe", "bench", "models", "train", "apps")
            for path in (ROOT / folder).rglob("*.[ch]*") if path.suffix in (".cpp", ".h"))
        self.assertGreater(len(wanted), 8)
        for name in wanted:
            header = self.HEADERS.get(name, name)
            self.assertTrue(f"#include {header}" in sources, f"{name}: no source has {header}")


class FetchData(unittest.TestCase):
    def fetch(self, source, target):
        return run([SCRIPTS / "fetch_data.sh", "--from", source, "--to", target, "--no-tokenize"])

    def test_copies_complete_sets_and_names_the_others(self):
        with Tree({"tokenizers/gpt2/encoder.json": "{}", "tokenizers/gpt2/vocab.bpe": "#",
                   "text/wikitext-2/train.txt": "text"}) as source, Tree({}) as target:
            status, output = self.fetch(source, target)
            copied = sorted(p.name for p in (target / "tokenizers/gpt2").iterdir())
        self.assertEqual(status, 0, output)
        self.assertEqual(copied, ["merges.txt", "vocab.json"])
        self.assertRegex(output, r"wikitext-2 +skipped.*valid.txt")

    def test_empty_or_missing_source(self):
        with Tree({}) as empty:
            for source, message in ((empty, "no complete set"), (empty / "no", "no such folder")):
                status, output = self.fetch(source, empty)
                self.assertEqual(status, 1)
                self.assertIn(message, output)


if __name__ == "__main__":
    unittest.main()
