#!/usr/bin/env python3
"""Two builds with different MPI libraries train alike, bit for bit, and tell an error once:
same_bits.py MPIRUN PROGRAM OTHER_MPIRUN OTHER_PROGRAM"""
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "faults"))

from harness import Report, Scratch, environment, metrics  # noqa: E402


def run(mpirun, ranks, program, *arguments):
    return subprocess.run([mpirun, "-n", str(ranks), program, *map(str, arguments)], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(),
                          timeout=300)


def train(scratch, name, ranks, mpirun, program):
    config = scratch.config(name, expert=2)
    ended = run(mpirun, ranks, program, "train", config)
    assert ended.returncode == 0, f"{mpirun} ended with {ended.returncode}:\n{ended.stdout}"
    return metrics(scratch.path / name)


def same_bits(scratch, ranks, first, second):
    one, other = (train(scratch, f"{name}{ranks}", ranks, *build)
                  for name, build in (("first", first), ("second", second)))
    assert one and one == other, "the figures differ"
    return f"{len(one)} steps"


def one_message(mpirun, program):
    ended = run(mpirun, 2, program, "train", "none.yaml")
    told = [line for line in ended.stdout.splitlines() if line.startswith("adagate")]
    assert ended.returncode != 0 and len(told) == 1, f"{ended.returncode}:\n{ended.stdout}"
    return told[0]


def main():
    mpirun, program, other_mpirun, other_program = sys.argv[1:]
    report = Report()
    with Scratch(3400) as scratch:
        for ranks in (2, 4):
            report.case(f"{ranks} ranks give the same bits", same_bits, scratch, ranks,
                        (mpirun, program), (other_mpirun, other_program))
    report.case("an error is told once", one_message, other_mpirun, other_program)
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
