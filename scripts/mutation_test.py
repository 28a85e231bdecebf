#!/usr/bin/env python3
"""Does the test-suite notice faults? Plants those of tests/faults/faults.py one by one.

Works on copies of the sources under build/mutation*: there every fault is planted, built, and the
tests named with it are run; at least one must fail. Ends with a table; exit 1 when a fault went
unnoticed, no longer compiles, or no longer fits the sources.
"""
import argparse
import concurrent.futures
import os
import pathlib
import queue
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "faults"))
from faults import FAULTS  # noqa: E402

# What a test whose name begins so runs, where that is not test_NAME.
PROGRAMS = {"parallel_mpi": "mpi_program", "train_mpi": "layouts_program", "faults": "adagate"}
SECONDS = 150  # a test that takes longer is stopped, and counts as red


def stale_faults(faults, root=ROOT):
    """Faults that don't fit the sources exactly once, as messages."""
    for fault in faults:
        path = root / fault.file
        count = path.read_text(encoding="utf-8").count(fault.find) if path.is_file() else 0
        if count != 1:
            yield f"{fault.name}: its text occurs {count} times in {fault.file}, once expected"


class Copy:
    """The sources once more, with a build of their own: one fault at a time is planted in it."""

    def __init__(self, number, jobs):
        # Laid out like the project itself, so that a compiler cache serves all.
        self.root = ROOT / "build" / ("mutation" if number == 0 else f"mutation-{number + 1}")
        self.build_folder = self.root / "build" / "cpu-release"
        self.jobs = jobs

    def copy_sources(self):
        """Brings the copy up to date; files that are the same keep their time: none rebuilds."""
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT,
                                check=True, capture_output=True, text=True).stdout.splitlines()
        for name in listed:
            source, copy = ROOT / name, self.root / name
            if not source.is_file():
                continue
            if not copy.is_file() or copy.read_bytes() != source.read_bytes():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
                shutil.copymode(source, copy)
        for folder in ("core", "parallel", "data", "layers", "moe", "bench", "models", "train",
                       "apps", "tests"):
            for path in (self.root / folder).rglob("*"):
                if path.is_file() and str(path.relative_to(self.root)) not in listed:
                    path.unlink()

    def run(self, command):
        # The tests' short forms: the faults are meant to turn those red that every run has.
        environment = {**os.environ, "CCACHE_BASEDIR": str(self.root), "CCACHE_NOHASHDIR": "1",
                       "ADAGATE_TEST_FULL": "0"}
        return subprocess.run([str(c) for c in command], capture_output=True, text=True,
                              cwd=self.root, env=environment, check=False)

    def tests_of(self, regex):
        """The names of the tests that match. ctest's own -R takes nine groups at most."""
        listed = self.run(["ctest", "--test-dir", self.build_folder, "-N"]).stdout
        return [n for n in re.findall(r"Test\s+#\d+: (\S+)", listed) if re.search(regex, n)]

    def targets_of(self, regex):
        """The programs behind them."""
        names = self.tests_of(regex)
        prefixed = {n: program for n in names for p, program in PROGRAMS.items()
                    if n.startswith(p)}
        return sorted({prefixed.get(n, f"test_{n}") for n in names})

    def build(self, targets):
        result = self.run(["cmake", "--build", self.build_folder, "-j", self.jobs, "--target",
                           *targets])
        return result.returncode == 0, result.stdout + result.stderr

    def shorten_timeouts(self):
        """ctest's --timeout is for tests without a limit of their own only."""
        for path in self.build_folder.rglob("CTestTestfile.cmake"):
            text = path.read_text(encoding="utf-8")
            path.write_text(re.sub(r'TIMEOUT "\d+"', f'TIMEOUT "{SECONDS}"', text),
                            encoding="utf-8")

    def run_tests(self, regex):
        """(whether all passed, the name of the first that failed)."""
        self.shorten_timeouts()
        result = self.run(["ctest", "--test-dir", self.build_folder, "-R",
                           f"^({'|'.join(self.tests_of(regex))})$", "--stop-on-failure",
                           "--no-tests=error"])
        failed = re.search(r"^\s*\d+ - (\S+) \((.*?)\)", result.stdout, re.M)
        return result.returncode == 0, failed.group(1) if failed else "?"

    def try_fault(self, fault):
        """(outcome, detail): caught with the test's name, MISSED, or BROKEN: does not compile."""
        path = self.root / fault.file
        original = path.read_text(encoding="utf-8")
        path.write_text(original.replace(fault.find, fault.replace), encoding="utf-8")
        try:
            built, output = self.build(self.targets_of(fault.tests))
            if not built:
                error = re.search(r"error: .*", output)
                return "BROKEN", error.group() if error else "does not build"
            passed, failed = self.run_tests(fault.tests)
            return ("MISSED", fault.tests) if passed else ("caught", failed)
        finally:
            path.write_text(original, encoding="utf-8")

    def prepare(self, regex):
        """Builds the copy without a fault; says what is wrong, or None. Its tests must pass."""
        self.copy_sources()
        configured = self.run(["cmake", "--preset", "cpu-release",
                               "-DADAGATE_BUILD_TESTS=ON"])
        if configured.returncode != 0:
            return configured.stdout + configured.stderr
        built, output = self.build(self.targets_of(regex))
        return None if built else output[-4000:]


def plant(faults, copies):
    """Plants each fault in the copy that is free next; prints a line for each. How many are not
    caught."""
    free = queue.Queue()
    for copy in copies:
        free.put(copy)

    def in_free_copy(fault):
        copy, start = free.get(), time.time()
        try:
            return fault, *copy.try_fault(fault), time.time() - start
        finally:
            free.put(copy)

    missed = 0
    print(f"{'fault':<66} {'seconds':>7}  result", flush=True)
    with concurrent.futures.ThreadPoolExecutor(len(copies)) as pool:
        for fault, outcome, detail, seconds in pool.map(in_free_copy, faults):
            missed += outcome != "caught"
            print(f"{fault.name:<66} {seconds:7.0f}  {outcome}: {detail}", flush=True)
    return missed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", action="store_true", help="only the faults marked as sample")
    parser.add_argument("--only", metavar="REGEX", help="only the faults whose name matches")
    parser.add_argument("--list", action="store_true", help="print the faults and stop")
    parser.add_argument("--check", action="store_true",
                        help="only see whether every fault still fits the sources")
    parser.add_argument("--jobs", default=str(os.cpu_count()),
                        help="faults tried at a time, each in a copy of its own")
    args = parser.parse_args()
    faults = [f for f in FAULTS if (f.sample or not args.sample) and
              (not args.only or re.search(args.only, f.name))]
    if args.list:
        print("\n".join(f"{f.file}: {f.name} [{f.tests}]" for f in faults))
        return 0
    stale = list(stale_faults(faults))
    for message in stale:
        print(message, file=sys.stderr)
    if args.check or stale:
        print(f"faults: {len(faults)} listed, {len(stale)} don't fit the sources")
        return 1 if stale else 0

    # A fault is one file to compile, a program to link and a test: each keeps one core busy.
    count = min(int(args.jobs), len(faults))
    copies = [Copy(i, max(1, int(args.jobs) // count)) for i in range(count)]
    regex = "|".join(sorted({f.tests for f in faults}))
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        for problem in filter(None, pool.map(lambda copy: copy.prepare(regex), copies)):
            sys.exit(problem)
    passed, failed = copies[0].run_tests(regex)
    if not passed:
        sys.exit(f"the test {failed} fails without any fault")
    missed = plant(faults, copies)
    print(f"{len(faults) - missed} of {len(faults)} faults caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
