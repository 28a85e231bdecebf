#!/usr/bin/env python3
"""Puts runs side by side: scripts/compare_runs.py runs/wikitext2_top2 runs/wikitext2_adaptive

Reads each run's metrics.jsonl and prints a Markdown table (or, with --json, the figures): tokens,
last validation perplexity, time of the steps, FLOPs counted from the real number of assignments,
share of tokens with a single expert, bytes exchanged, and where the time went. The first run is the
yardstick of the ratios.
"""
import argparse
import json
import math
import sys
from pathlib import Path

PHASES = ["data", "forward", "gate", "dispatch", "experts", "combine", "backward", "reduce",
          "optimizer"]


def read_lines(path):
    """The JSON objects of a file; the torn last line of a killed run is left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        sys.exit(f"compare_runs: {path}: {error.strerror}: give the output directory of a run")
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            lines.append(json.loads(line))
        except ValueError:
            if number < len(text.splitlines()) or text.endswith("\n"):
                sys.exit(f"compare_runs: {path}:{number}: is no JSON")
    return [line for line in lines if isinstance(line, dict)]


def finite(values):
    """What can be counted with: a step that diverged has null or NaN."""
    return [v for v in values if isinstance(v, (int, float)) and math.isfinite(v)]


def mean(values):
    values = finite(values)
    return sum(values) / len(values) if values else None


def total(values):
    return sum(finite(values))


def labels_of(folders):
    """The last parts of each path, as many as tell the runs apart; then a number."""
    paths = [Path(folder).resolve() for folder in folders]
    depth = 1
    while depth < max(len(p.parts) for p in paths):
        labels = ["/".join(p.parts[-depth:]) for p in paths]
        if len(set(labels)) == len(set(paths)):
            break
        depth += 1
    labels = ["/".join(p.parts[-depth:]) for p in paths]
    return [label if labels.count(label) == 1 else f"{label} ({labels[:i + 1].count(label)})"
            for i, label in enumerate(labels)]


def read_run(folder, label):
    path = Path(folder) / "metrics.jsonl"
    lines = read_lines(path)
    # Each kind of line by a field of its own: there may be others.
    steps = [line for line in lines if "loss" in line and "consumed_tokens" in line]
    evaluations = [line for line in lines if "validation_loss" in line]
    if not steps:
        sys.exit(f"compare_runs: {path} has no steps yet")
    seconds = total(s.get("seconds") for s in steps)
    tail = steps[-max(1, len(steps) // 10):]  # the last tenth
    tokens = steps[-1]["consumed_tokens"]
    last = lambda key: mean(s.get(key) for s in tail)
    layers = [s["moe"] for s in tail if s.get("moe")]
    return {
        "name": label,
        "steps": len(steps),
        "skipped steps": sum(bool(s.get("skipped")) for s in steps),
        "tokens": tokens,
        "training loss": last("loss"),
        "validation perplexity": mean(e.get("validation_perplexity") for e in evaluations[-1:]),
        "seconds": seconds,
        "tokens per second": tokens / seconds if seconds else None,
        "PFLOP": total(s.get("flops") for s in steps) * 1e-15,
        "single-expert share, start": steps[0].get("single_expert_share"),
        "single-expert share, end": last("single_expert_share"),
        "experts per token, mean": mean(s.get("experts_per_token") for s in steps),
        "GB exchanged": 1e-9 * total(l.get("bytes_sent") for s in steps for l in s.get("moe", [])),
        "phases": {p: total(s.get("time", {}).get(p) for s in steps) for p in PHASES},
        "layers": [mean(step[i].get("single_expert_share") for step in layers if i < len(step))
                   for i in range(len(layers[-1]) if layers else 0)],
    }


def row(title, cells):
    return "| " + " | ".join([title, *cells]) + " |"


def shown(value, pattern="{}", scale=1):
    """A figure as text; '-' where there is none: no evaluation, no experts, a diverged run."""
    return pattern.format(value * scale) if finite([value]) else "-"


def percent(value):
    return shown(value, "{:.1f} %", 100)


def table(runs):
    first = runs[0]

    def with_ratio(key, pattern):
        def ratio(run):
            there = run is not first and finite([run[key]]) and finite([first[key]]) and first[key]
            return f" ({run[key] / first[key]:.3f} x)" if there else ""
        return [shown(run[key], pattern) + ratio(run) for run in runs]

    lines = [row("", [r["name"] for r in runs]), row("---", ["---"] * len(runs)),
             row("steps, tokens", [f"{r['steps']}, {r['tokens']:,}" for r in runs])]
    if any(r["skipped steps"] for r in runs):
        lines.append(row("steps skipped: loss or gradient not finite",
                         [str(r["skipped steps"]) for r in runs]))
    lines += [row("validation perplexity", [shown(r["validation perplexity"], "{:.2f}")
                                            for r in runs]),
              row("training loss, last tenth", [shown(r["training loss"], "{:.4f}")
                                                for r in runs]),
              row("time of the steps, s", with_ratio("seconds", "{:.1f}")),
              row("tokens per second", with_ratio("tokens per second", "{:.0f}")),
              row("PFLOP", with_ratio("PFLOP", "{:.4f}")),
              row("experts per token, mean of the run",
                  [shown(r["experts per token, mean"], "{:.3f}") for r in runs]),
              row("single-expert tokens, first step to last tenth",
                  [f"{percent(r['single-expert share, start'])} to "
                   f"{percent(r['single-expert share, end'])}" for r in runs]),
              row("the same by MoE layer, last tenth",
                  [" / ".join(percent(s) for s in r["layers"]) or "-" for r in runs]),
              row("GB exchanged forward, all ranks", with_ratio("GB exchanged", "{:.2f}"))]
    for phase in PHASES:
        lines.append(row(f"{phase}, s (rank 0)", [f"{r['phases'][phase]:.1f}" for r in runs]))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="output directory of a run")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    runs = [read_run(*run) for run in zip(arguments.runs, labels_of(arguments.runs))]
    # Not allow_nan: other programs refuse NaN.
    print(json.dumps(runs, indent=1, allow_nan=False) if arguments.json else table(runs))


if __name__ == "__main__":
    main()
