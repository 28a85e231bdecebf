"""Runs one part of the check; started by check.sh, which tells the options."""

import argparse
import sys

import machine
from steps import Report, Runner


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["correctness", "speed"])
    parser.add_argument("out")
    parser.add_argument("--minutes", type=float, default=4.8)
    parser.add_argument("--only", action="append", metavar="TEXT")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--patience", type=float, default=1.0)
    return parser.parse_args()


def main():
    args = arguments()
    if args.part == "correctness":
        from correctness import run_part
    else:
        from speed import run_part
    report = Report(args.out)
    runner = Runner(args.part, report, args.minutes,
                    lambda name: not args.only or any(text in name for text in args.only),
                    args.patience)
    with machine.scratch_folder() as scratch:
        run_part(runner, report, scratch, args.steps)
        passed = runner.finish()
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
