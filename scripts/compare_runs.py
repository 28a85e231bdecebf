#!/usr/bin/env python3
"""Puts runs side by side: scripts/compare_runs.py runs/wikitext2_top2 runs/wikitext2_adaptive

Reads each run's metrics.jsonl and prints a Markdown table (or, with --json, the figures): tokens,
last validation perplexity, time of the steps, FLOPs counted from the real number of assignments,
share of tokens with a single expert, bytes exchanged, and where the time went. The first run is the
yardstick of the ratios.
"""
import argparse
import json
import sys
from pathlib import Path

PHASES = ["data", "forward", "gate", "dispatch", "experts", "combine", "backward", "reduce",
          "optimizer"]


def read_run(folder):
    path = Path(folder) / "metrics.jsonl"
    if not path.exists():
        sys.exit(f"compare_runs: {path} does not exist: give the output directory of a run")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    evaluations = [line for line in lines if "validation_loss" in line]
    if not steps:
        sys.exit(f"compare_runs: {path} has no steps yet")
    seconds = sum(s["seconds"] for s in steps)
    tail = steps[-max(1, len(steps) // 10):]  # the last tenth
    mean = lambda key: sum(s.get(key, 0.0) for s in tail) / len(tail)
    return {
        "name": Path(folder).name,
        "steps": len(steps),
        "tokens": steps[-1]["consumed_tokens"],
        "training loss": mean("loss"),
        "validation perplexity": evaluations[-1]["validation_perplexity"] if evaluations else None,
        "seconds": seconds,
        "tokens per second": steps[-1]["consumed_tokens"] / seconds,
        "PFLOP": sum(s["flops"] for s in steps) * 1e-15,
        "single-expert share, start": steps[0].get("single_expert_share", 0.0),
        "single-expert share, end": mean("single_expert_share"),
        "experts per token, mean": sum(s.get("experts_per_token", 0.0) for s in steps) / len(steps),
        "GB exchanged": 1e-9 * sum(l["bytes_sent"] for s in steps for l in s.get("moe", [])),
        "phases": {p: sum(s["time"][p] for s in steps) for p in PHASES},
        "layers": [sum(s["moe"][i]["single_expert_share"] for s in tail) / len(tail)
                   for i in range(len(steps[0].get("moe", [])))],
    }


def row(title, cells):
    return "| " + " | ".join([title, *cells]) + " |"


def table(runs):
    first = runs[0]

    def with_ratio(key, pattern):
        return [pattern.format(r[key]) + ("" if r is first or not first[key]
                                          else f" ({r[key] / first[key]:.3f} x)") for r in runs]

    perplexity = [f"{r['validation perplexity']:.2f}" if r["validation perplexity"] else "-"
                  for r in runs]
    lines = [row("", [r["name"] for r in runs]), row("---", ["---"] * len(runs)),
             row("steps, tokens", [f"{r['steps']}, {r['tokens']:,}" for r in runs]),
             row("validation perplexity", perplexity),
             row("training loss, last tenth", [f"{r['training loss']:.4f}" for r in runs]),
             row("time of the steps, s", with_ratio("seconds", "{:.1f}")),
             row("tokens per second", with_ratio("tokens per second", "{:.0f}")),
             row("PFLOP", with_ratio("PFLOP", "{:.4f}")),
             row("experts per token, mean of the run",
                 [f"{r['experts per token, mean']:.3f}" for r in runs]),
             row("single-expert tokens, first step to last tenth",
                 [f"{100 * r['single-expert share, start']:.1f} % to "
                  f"{100 * r['single-expert share, end']:.1f} %" for r in runs]),
             row("the same by MoE layer, last tenth",
                 [" / ".join(f"{100 * s:.1f} %" for s in r["layers"]) or "-" for r in runs]),
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
    runs = [read_run(folder) for folder in arguments.runs]
    print(json.dumps(runs, indent=1) if arguments.json else table(runs))


if __name__ == "__main__":
    main()
