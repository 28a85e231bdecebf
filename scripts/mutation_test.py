#!/usr/bin/env python3
"""Does the test-suite notice faults? Plants those of tests/faults/faults.py one by one.

Works on copies of the sources under build/mutation*: there every fault is planted, built, and the
tests named with it are run; at least one must fail. Ends with a table; exit 1 when a fault went
unnoticed, no longer compiles, or no longer fits the sources.

tests/faults/first_cases.json says which test case has caught a fault before: it is tried first, as
most of the time goes into cases that don't know of the fault. --learn writes that file anew.
"""
import argparse
import concurrent.futures
import html
import json
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
FIRST_CASES = ROOT / "tests" / "faults" / "first_cases.json"


def stale_faults(faults, root=ROOT):
    """Faults that don't fit the sources exactly once, as messages."""
    for fault in faults:
        path = root / fault.file
        count = path.read_text(encoding="utf-8").count(fault.find) if path.is_file() else 0
        if count != 1:
            yield f"{fault.name}: its text occurs {count} times in {fault.file}, once expected"


class Copy:
    """The sources once more, with a build of their own: one fault at a time is planted in it."""

    def __init__(self, number, jobs, first_cases):
        # Laid out like the project itself, so that a compiler cache serves all.
        self.root = ROOT / "build" / ("mutation" if number == 0 else f"mutation-{number + 1}")
        self.build_folder = self.root / "build" / "cpu-release"
        self.jobs = jobs
        self.first_cases = first_cases

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

    def run(self, command, **options):
        # The tests' short forms: the faults are meant to turn those red that every run has.
        environment = {**os.environ, "CCACHE_BASEDIR": str(self.root), "CCACHE_NOHASHDIR": "1",
                       "ADAGATE_TEST_FULL": "0", "OMP_WAIT_POLICY": "passive"}
        return subprocess.run([str(c) for c in command], capture_output=True, text=True,
                              env=environment, check=False, **{"cwd": self.root, **options})

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

    def program_of(self, test):
        """The test's Catch2 program, which stops at its first failure if told so; None: it is run
        otherwise."""
        prefixed = any(test.startswith(prefix) for prefix in PROGRAMS)
        program = self.build_folder / "bin" / f"test_{test}"
        return None if prefixed or not program.is_file() else program

    def run_program(self, test, case=None):
        """(whether it passed, the case that failed) of a Catch2 program up to its first failure;
        case: only this one."""
        command = [self.program_of(test), "--abort", "--reporter", "xml"]
        if case:
            command.append(re.sub(r'([\\,\[\]*~"])', r"\\\1", case))
        try:
            result = self.run(command, cwd=self.build_folder / "tests", timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return False, case or "?"
        cases = re.findall(r'<TestCase name="([^"]*)"', result.stdout)
        failed = html.unescape(cases[-1]) if cases else "?"
        # A case that is no longer there runs nothing, which some versions call a failure.
        return result.returncode == 0 or (case is not None and not cases), failed

    def shorten_timeouts(self):
        """ctest's --timeout is for tests without a limit of their own only."""
        for path in self.build_folder.rglob("CTestTestfile.cmake"):
            text = path.read_text(encoding="utf-8")
            path.write_text(re.sub(r'TIMEOUT "\d+"', f'TIMEOUT "{SECONDS}"', text),
                            encoding="utf-8")

    def run_tests(self, regex):
        """(whether all passed, the name of the first that failed, its case if it has any)."""
        others = []
        for test in self.tests_of(regex):
            if self.program_of(test) is None:
                others.append(test)
                continue
            passed, case = self.run_program(test)
            if not passed:
                return False, test, case
        if not others:
            return True, "", ""
        self.shorten_timeouts()
        result = self.run(["ctest", "--test-dir", self.build_folder, "-R",
                           f"^({'|'.join(others)})$", "--stop-on-failure",
                           "--no-tests=error"])
        failed = re.search(r"^\s*\d+ - (\S+) \((.*?)\)", result.stdout, re.M)
        return result.returncode == 0, failed.group(1) if failed else "?", ""

    def run_first_case(self, fault):
        """(whether all is well, test, case) of the case that has caught the fault before."""
        test, case = self.first_cases.get(fault.name, ("", ""))
        if not case or test not in self.tests_of(fault.tests) or not self.program_of(test):
            return True, "", ""
        passed, _ = self.run_program(test, case)
        return passed, test, case

    def try_fault(self, fault):
        """(outcome, detail, case): caught with the test's name and its case if it has any, MISSED,
        or BROKEN: does not compile."""
        path = self.root / fault.file
        original = path.read_text(encoding="utf-8")
        path.write_text(original.replace(fault.find, fault.replace), encoding="utf-8")
        try:
            built, output = self.build(self.targets_of(fault.tests))
            if not built:
                error = re.search(r"error: .*", output)
                return "BROKEN", error.group() if error else "does not build", ""
            passed, test, case = self.run_first_case(fault)
            if passed:
                passed, test, case = self.run_tests(fault.tests)
            return ("MISSED", fault.tests, "") if passed else ("caught", test, case)
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
    """Plants each fault in the copy that is free next; prints a line for each. The names of those
    that are not caught, and {name: (test, case)} of the others."""
    free = queue.Queue()
    for copy in copies:
        free.put(copy)

    def in_free_copy(fault):
        copy, start = free.get(), time.time()
        try:
            return fault, *copy.try_fault(fault), time.time() - start
        finally:
            free.put(copy)

    missed, cases = [], {}
    print(f"{'fault':<66} {'seconds':>7}  result", flush=True)
    with concurrent.futures.ThreadPoolExecutor(len(copies)) as pool:
        for fault, outcome, detail, case, seconds in pool.map(in_free_copy, faults):
            if outcome != "caught":
                missed.append(fault.name)
            elif case:
                cases[fault.name] = (detail, case)
            print(f"{fault.name:<66} {seconds:7.0f}  {outcome}: {detail}", flush=True)
    return missed, cases


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", action="store_true", help="only the faults marked as sample")
    parser.add_argument("--only", metavar="REGEX", help="only the faults whose name matches")
    parser.add_argument("--list", action="store_true", help="print the faults and stop")
    parser.add_argument("--check", action="store_true",
                        help="only see whether every fault still fits the sources")
    parser.add_argument("--learn", action="store_true",
                        help="write down which case has caught which fault")
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
    known = json.loads(FIRST_CASES.read_text(encoding="utf-8")) if FIRST_CASES.is_file() else {}
    copies = [Copy(i, max(1, int(args.jobs) // count), known) for i in range(count)]
    regex = "|".join(sorted({f.tests for f in faults}))
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        for problem in filter(None, pool.map(lambda copy: copy.prepare(regex), copies)):
            sys.exit(problem)
    passed, failed, case = copies[0].run_tests(regex)
    if not passed:
        sys.exit(f"the test {failed} fails without any fault: {case}")
    missed, cases = plant(faults, copies)
    if args.learn:
        names = {fault.name for fault in FAULTS}
        kept = {n: tuple(c) for n, c in {**known, **cases}.items() if n in names}
        lines = [f"  {json.dumps(n)}: {json.dumps(c)}" for n, c in sorted(kept.items())]
        FIRST_CASES.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{len(faults) - len(missed)} of {len(faults)} faults caught")
    for name in missed:
        print(f"not caught: {name}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
