#!/usr/bin/env python3
"""Counts the instructions of a training step and compares them with the committed bounds.

Builds the driver tests/tools/one_step.cpp with the preset cpu-guard (one thread, no oneDNN, the
same instruction set everywhere), runs it under `valgrind --tool=callgrind` for two numbers of
steps, and divides the difference, so that start-up does not count. The result is the same on a busy
machine.

usage: instruction_guard.py [--update] [--top N] [--case NAME] [--no-build]
exit status: 0 within the bounds or skipped (the reason is printed), 1 otherwise
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "cpu-guard"
BOUNDS = pathlib.Path(__file__).with_name("bounds.json")
CASES = ["dense_fp32", "moe_adaptive_fp32"]
# What is bounded: all instructions, and those outside Eigen's matrix products, which are most of
# the former and would hide what the rest costs.
COUNTS = {"all": lambda f: True, "outside_products": lambda f: not f.startswith("Eigen::")}
WARM_UP, STEPS = 3, 6  # the driver runs WARM_UP and WARM_UP + STEPS steps
TOLERANCE = 0.10
# glibc picks its string functions and mathematics by processor; these are those every one has.
TUNABLES = "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-AVX512VL,-FMA,-FMA4,-ERMS,-FSRM,-BMI2,-RTM"
TUNABLES += ",-AVX_Fast_Unaligned_Load"


def run(command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nfailed with {done.returncode}:\n"
                 f"{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def build():
    run(["cmake", "--preset", "cpu-guard"], cwd=ROOT)
    run(["cmake", "--build", BUILD, "--target", "one_step"], cwd=ROOT)


def tool_versions():
    """Compiler and distribution: they decide which instructions come out of the same sources."""
    cache = (BUILD / "CMakeCache.txt").read_text()
    compiler = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.*)$", cache, re.M).group(1)
    name = "clang" if "clang" in run([compiler, "--version"]) else "g++"
    version = run([compiler, "-dumpfullversion", "-dumpversion"]).split()[0]
    release = dict(re.findall(r'^(ID|VERSION_ID)="?([^"\n]*)"?$',
                              pathlib.Path("/etc/os-release").read_text(), re.M))
    return f"{name} {version} on {release.get('ID', '?')} {release.get('VERSION_ID', '')}".strip()


def self_costs(path):
    """Instructions by function from a callgrind file, not counting those of callees."""
    names, costs, function, skip = {}, {}, None, False
    for line in open(path, encoding="utf-8", errors="replace"):
        if line.startswith("fn="):
            number, name = re.match(r"fn=\((\d+)\)(?: (.*))?", line).groups()
            if name:
                names[number] = name.strip()
            function = names[number]
        elif line.startswith("cfn="):
            number, name = re.match(r"cfn=\((\d+)\)(?: (.*))?", line).groups()
            if name:
                names[number] = name.strip()
        elif line.startswith("calls="):
            skip = True  # the next line holds what the callee cost
        elif line[0].isdigit() or line[0] in "+-*":
            if not skip:
                costs[function] = costs.get(function, 0) + int(line.split()[1])
            skip = False
    return costs


def profile(case, steps):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "callgrind.out"
        run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}",
             BUILD / "bin" / "one_step", case, steps],
            env={**os.environ, "GLIBC_TUNABLES": TUNABLES})
        return self_costs(out)


def step_costs(case):
    """Instructions of one step by function."""
    before, after = profile(case, WARM_UP), profile(case, WARM_UP + STEPS)
    return {f: (n - before.get(f, 0)) / STEPS for f, n in after.items() if n != before.get(f, 0)}


def print_top(costs, count):
    total = sum(costs.values())
    for function, cost in sorted(costs.items(), key=lambda item: -item[1])[:count]:
        name = function if len(function) <= 100 else function[:97] + "..."
        print(f"  {100 * cost / total:5.1f} %  {cost:12,.0f}  {name}")


def judge(case, counts, bounds, costs, top):
    """Prints the verdict on a case; returns whether it is within its bounds."""
    passed = True
    for kind, bound in bounds.items():
        ratio = counts[kind] / bound
        print(f"{case}, {kind}: {counts[kind]:,} instructions per step, "
              f"{100 * (ratio - 1):+.1f} % of {bound:,}")
        if ratio > 1 + TOLERANCE:
            print(f"  FAILED: more than {100 * TOLERANCE:.0f} % above the bound. Where they are "
                  "(if that is meant, commit the outcome of --update):")
            print_top({f: n for f, n in costs.items() if COUNTS[kind](f)}, max(top, 15))
            passed = False
        elif ratio < 1 - TOLERANCE:
            print("  fewer than before: make it the bound with instruction_guard.py --update")
    print_top(costs, top if passed else 0)
    return passed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--update", action="store_true", help="write the counts as new bounds")
    parser.add_argument("--top", type=int, default=0, help="show the N most expensive functions")
    parser.add_argument("--case", choices=CASES, help="this case alone")
    parser.add_argument("--no-build", action="store_true", help="the driver is built already")
    options = parser.parse_args()
    if not shutil.which("valgrind"):
        print("skipped: valgrind is not installed (scripts/install_deps.sh --tests)")
        return 0
    if os.uname().machine != "x86_64":
        print(f"skipped: the bounds are for x86_64, this machine is {os.uname().machine}")
        return 0
    if not options.no_build:
        build()
    stored = json.loads(BOUNDS.read_text()) if BOUNDS.exists() else {"cases": {}}
    tools = tool_versions()
    if not options.update and stored.get("tools") != tools:
        print(f"skipped: the bounds are for {stored.get('tools')}, this is {tools}; "
              "other tools make other instructions")
        return 0
    passed, counts = True, {}
    for case in [options.case] if options.case else CASES:
        costs = step_costs(case)
        counts[case] = {kind: round(sum(n for f, n in costs.items() if counted(f)))
                        for kind, counted in COUNTS.items()}
        if options.update:
            print(f"{case}: {counts[case]['all']:,} instructions per step")
            print_top(costs, options.top)
        elif case not in stored["cases"]:
            print(f"{case}: no bound yet; write one with --update")
            passed = False
        else:
            passed = judge(case, counts[case], stored["cases"][case], costs, options.top) and passed
    if options.update:
        kept = stored["cases"] if stored.get("tools") == tools else {}
        text = json.dumps({"tools": tools, "cases": {**kept, **counts}}, indent=2)
        BOUNDS.write_text(text + "\n")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
