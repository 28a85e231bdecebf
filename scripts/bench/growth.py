#!/usr/bin/env python3
"""How a step's time and memory grow with width, depth, experts, context and batch.

Usage: scripts/bench/growth.py [--steps 6] [--adagate build/cpu-release/bin/adagate] [--text FILE]

Trains each model of a series for a few steps on one rank with bytes as tokens and prints a Markdown
table per series: median time of a step, tokens/s, GFLOP/s by the real number of assignments, peak
memory of tensors, and time relative to the first row beside the active FLOPs relative to it, which
should move together.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASE = {"model.preset": "gpt2", "model.vocabulary": 8192, "moe.experts": 8, "moe.every": 2,
        "moe.gate.policy": "top2", "moe.balance.loss": "switch", "train.batch": 8}
SERIES = {
    "width": ("model.width", [192, 384, 768, 1536], {"model.heads": lambda v: v // 64}),
    "depth": ("model.layers", [2, 4, 6, 12], {}),
    "experts": ("moe.experts", [2, 8, 16, 32, 64], {}),
    "context": ("model.context", [128, 256, 1024, 2048, 4096],
                {"train.batch": lambda v: 4096 // v}),
    "batch": ("train.batch", [1, 2, 4, 8, 16], {}),
}


def measure(arguments, settings, folder):
    command = [str(arguments.adagate), "train", str(folder / "base.yaml"), "--overwrite"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    lines = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line][2:]
    return {"seconds": statistics.median(s["seconds"] for s in steps),
            "tokens": steps[0]["targets"],
            "flops": statistics.median(s["flops"] for s in steps),
            "memory": max(s["peak_memory_bytes"] for s in steps),
            "optimizer": statistics.median(s["time"]["optimizer"] for s in steps)}


def series_table(name, arguments, folder):
    key, values, derived = SERIES[name]
    rows = [f"| {key} | ms/step | of it optimizer | tokens/s | GFLOP/s | memory, MiB "
            "| time | FLOPs |",
            "|---|---|---|---|---|---|---|---|"]
    first = None
    for value in values:
        settings = {**BASE, key: value, **{k: f(value) for k, f in derived.items()},
                    "train.length": f"{arguments.steps}s"}
        m = measure(arguments, settings, folder)
        first = first or m
        rows.append(f"| {value} | {1e3 * m['seconds']:.1f} | {1e3 * m['optimizer']:.1f} "
                    f"| {m['tokens'] / m['seconds']:.0f} | {m['flops'] / m['seconds'] * 1e-9:.0f} "
                    f"| {m['memory'] / 2**20:.0f} | {m['seconds'] / first['seconds']:.2f} x "
                    f"| {m['flops'] / first['flops']:.2f} x |")
    return "\n".join(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adagate", type=Path, default=ROOT / "build/cpu-release/bin/adagate")
    parser.add_argument("--text", type=Path, default=ROOT / "data/samples/shakespeare.txt")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--series", nargs="*", default=list(SERIES), choices=list(SERIES))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base = {"output": str(folder / "run"), "precision": arguments.precision,
                "data": {"tokenizer": "byte", "train": str(arguments.text)},
                "train": {"evaluate_every": "0s", "schedule": {"warmup": "1s"}},
                "checkpoint": {"save_at_end": False, "every": "0s"}}
        (folder / "base.yaml").write_text(json.dumps(base))  # JSON is YAML
        for name in arguments.series:
            print(f"\n### {name} ({arguments.precision})\n")
            print(series_table(name, arguments, folder), flush=True)


if __name__ == "__main__":
    main()
