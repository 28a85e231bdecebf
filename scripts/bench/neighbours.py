#!/usr/bin/env python3
"""How fast is adagate beside other busy programs?

Trains a small MoE model, evaluates it and generates text from it: with one thread, with threads
that wait as OpenMP's library does by itself (GOMP_SPINCOUNT=300000), and with the default; on the
machine as it is and beside busy loops. The variants take turns; the table holds medians of seconds.

  scripts/bench/neighbours.py
  scripts/bench/neighbours.py --loops 0 --works train --spins 100,1000,10000
  scripts/bench/neighbours.py --loops 0,2,4 --rounds 5 --program build/cpu-release/bin/adagate
"""
import argparse
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = """data: {{tokenizer: byte, train: {text}}}
output: {output}
model: {{preset: modern, layers: 4, width: 128, heads: 4, context: 128}}
moe: {{experts: 4, every: 2}}
train: {{length: 20s, batch: 8, schedule: {{warmup: 0s}}}}
checkpoint: {{every: 0s, save_at_end: {save}}}
"""
TOKENS = 300
SPINS = {"GOMP_SPINCOUNT": "300000"}  # what libgomp takes without a word of anybody


def command_lines(program, folder):
    """Command line of each work for a number of threads; 0: the program's own choice."""
    text = ROOT / "data" / "samples" / "shakespeare.txt"
    for name, save in (("saved", "true"), ("timed", "false")):
        config = CONFIG.format(text=text, output=folder / name, save=save)
        (folder / f"{name}.yaml").write_text(config, encoding="utf-8")
    train = [program, "train", folder / "timed.yaml", "--overwrite"]
    generate = [program, "generate", folder / "saved", "--tokens", str(TOKENS), "--ignore-end"]
    subprocess.run([program, "train", folder / "saved.yaml"], check=True,
                   stdout=subprocess.DEVNULL)
    evaluate = [program, "evaluate", folder / "saved", "--data", text, "--samples", "512"]
    return {"train": lambda threads: [*train, "--set", f"parallel.threads={threads}"],
            "evaluate": lambda threads: [*evaluate, "--threads", str(threads)],
            "generate": lambda threads: [*generate, "--threads", str(threads)]}


def seconds_of(command, variables):
    environment = {k: v for k, v in os.environ.items()
                   if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")}
    start = time.monotonic()
    subprocess.run(command, check=True, env={**environment, **variables},
                   stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def variants_with(spins):
    """Number of threads and environment of each column."""
    cores = len(os.sched_getaffinity(0))
    variants = {"1 thread": (1, {}), f"{cores} threads, long spin": (cores, SPINS),
                "default": (0, {})}
    for spin in spins:
        variants[f"{cores} threads, spin {spin}"] = (cores, {"GOMP_SPINCOUNT": spin})
    return variants


def measure(works, loops, rounds, variants):
    """Rows of text: work, busy loops, seconds of each variant."""
    print("| work | busy loops | " + " | ".join(variants) + " |")
    print("|---|---|" + "---|" * len(variants))
    for count in loops:
        neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"])
                      for _ in range(count)]
        try:
            for work, command in works.items():
                times = {name: [] for name in variants}
                for _ in range(rounds):
                    for name, (threads, variables) in variants.items():
                        times[name].append(seconds_of(command(threads), variables))
                row = " | ".join(f"{statistics.median(t):.2f}" for t in times.values())
                print(f"| {work} | {count} | {row} |", flush=True)
        finally:
            for neighbour in neighbours:
                neighbour.kill()
                neighbour.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=ROOT / "build/cpu-release/bin/adagate",
                        help="the adagate to measure")
    parser.add_argument("--loops", default="0,2,4", help="numbers of busy loops beside it")
    parser.add_argument("--rounds", type=int, default=5, help="runs of every variant")
    parser.add_argument("--works", default="train,evaluate,generate", help="what to measure")
    parser.add_argument("--spins", default="", help="values of GOMP_SPINCOUNT for more columns")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the busy loops end with this program
    with tempfile.TemporaryDirectory() as folder:
        works = command_lines(options.program, pathlib.Path(folder))
        works = {name: works[name] for name in options.works.split(",")}
        measure(works, [int(n) for n in options.loops.split(",")], options.rounds,
                variants_with([spin for spin in options.spins.split(",") if spin]))


if __name__ == "__main__":
    main()
