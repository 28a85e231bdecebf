#!/usr/bin/env python3
"""Does the test-suite notice faults? Plants those of tests/faults/faults.py one by one.

Works on a copy of the sources under build/mutation: there every fault is planted, built, and the
tests named with it are run; at least one must fail. Ends with a table; exit 1 when a fault went
unnoticed, no longer compiles, or no longer fits the sources.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "faults"))
from faults import FAULTS  # noqa: E402

# Laid out like the project itself, so that a compiler cache serves both.
COPY = ROOT / "build" / "mutation"
BUILD = COPY / "build" / "cpu-release"
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


def copy_sources():
    """Brings the copy up to date; files that are the same keep their time, so nothing rebuilds."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.splitlines()
    for name in listed:
        source, copy = ROOT / name, COPY / name
        if not source.is_file():
            continue
        if not copy.is_file() or copy.read_bytes() != source.read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            shutil.copymode(source, copy)
    for folder in ("core", "parallel", "data", "layers", "moe", "bench", "models", "train",
                   "apps", "tests"):
        for path in (COPY / folder).rglob("*"):
            if path.is_file() and str(path.relative_to(COPY)) not in listed:
                path.unlink()


def run(command, **options):
    # The tests' short forms: the faults are meant to turn those red that every run has.
    environment = {**os.environ, "CCACHE_BASEDIR": str(COPY), "CCACHE_NOHASHDIR": "1",
                   "ADAGATE_TEST_FULL": "0"}
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd=COPY,
                          env=environment, check=False, **options)


def targets_of(regex):
    """The programs behind the ctest names that match."""
    listed = run(["ctest", "--test-dir", BUILD, "-N", "-R", regex]).stdout
    names = re.findall(r"Test\s+#\d+: (\S+)", listed)
    prefixed = {n: program for n in names for p, program in PROGRAMS.items() if n.startswith(p)}
    return sorted({prefixed.get(n, f"test_{n}") for n in names})


def build(jobs, targets):
    result = run(["cmake", "--build", BUILD, "-j", jobs, "--target", *targets])
    return result.returncode == 0, result.stdout + result.stderr


def shorten_timeouts():
    """ctest's --timeout is for tests without a limit of their own only."""
    for path in BUILD.rglob("CTestTestfile.cmake"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r'TIMEOUT "\d+"', f'TIMEOUT "{SECONDS}"', text), encoding="utf-8")


def run_tests(regex):
    """(whether all passed, the name of the first that failed)."""
    shorten_timeouts()
    result = run(["ctest", "--test-dir", BUILD, "-R", regex, "--stop-on-failure",
                  "--no-tests=error"])
    failed = re.search(r"^\s*\d+ - (\S+) \((.*?)\)", result.stdout, re.M)
    return result.returncode == 0, failed.group(1) if failed else "?"


def try_fault(fault, jobs):
    """(outcome, detail): caught with the test's name, MISSED, or BROKEN when it doesn't compile."""
    path = COPY / fault.file
    original = path.read_text(encoding="utf-8")
    path.write_text(original.replace(fault.find, fault.replace), encoding="utf-8")
    try:
        built, output = build(jobs, targets_of(fault.tests))
        if not built:
            error = re.search(r"error: .*", output)
            return "BROKEN", error.group() if error else "does not build"
        passed, failed = run_tests(fault.tests)
        return ("MISSED", fault.tests) if passed else ("caught", failed)
    finally:
        path.write_text(original, encoding="utf-8")


def prepare(jobs, regex):
    """Builds the copy without a fault; its tests must pass. Exits when they don't."""
    copy_sources()
    configured = run(["cmake", "--preset", "cpu-release", "-DADAGATE_BUILD_TESTS=ON"])
    if configured.returncode != 0:
        sys.exit(configured.stdout + configured.stderr)
    built, output = build(jobs, targets_of(regex))
    if not built:
        sys.exit(output[-4000:])
    passed, failed = run_tests(regex)
    if not passed:
        sys.exit(f"the test {failed} fails without any fault")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", action="store_true", help="only the faults marked as sample")
    parser.add_argument("--only", metavar="REGEX", help="only the faults whose name matches")
    parser.add_argument("--list", action="store_true", help="print the faults and stop")
    parser.add_argument("--check", action="store_true",
                        help="only see whether every fault still fits the sources")
    parser.add_argument("--jobs", default=str(os.cpu_count()), help="parallel compilers")
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

    prepare(args.jobs, "|".join(sorted({f.tests for f in faults})))
    print(f"{'fault':<66} {'seconds':>7}  result", flush=True)
    missed = 0
    for fault in faults:
        start = time.time()
        outcome, detail = try_fault(fault, args.jobs)
        missed += outcome != "caught"
        print(f"{fault.name:<66} {time.time() - start:7.0f}  {outcome}: {detail}", flush=True)
    print(f"{len(faults) - missed} of {len(faults)} faults caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
