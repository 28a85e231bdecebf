#!/usr/bin/env python3
"""Compares the loss that a run reached with the unigram entropy of its text.

A model that knows only how often each byte occurs has a loss of the entropy; exit 1 unless the
reached one is clearly below. Usage: quickstart_report.py METRICS_JSONL TEXT
"""
import collections
import json
import math
import pathlib
import sys

MARGIN = 0.5  # nats below the entropy that count as "clearly"
RECENT = 20   # steps averaged where the run had no evaluation


def unigram_entropy(text):
    counts = collections.Counter(text)
    return sum(-n / len(text) * math.log(n / len(text)) for n in counts.values())


def mean(values):
    return sum(values) / len(values) if values else float("nan")


def main():
    metrics, text = map(pathlib.Path, sys.argv[1:3])
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "loss" in line]
    evaluations = [line for line in lines if "validation_loss" in line]
    if not steps:
        sys.exit(f"{metrics} has no step")
    entropy = unigram_entropy(text.read_bytes())
    last = mean([s["loss"] for s in steps[-RECENT:]])
    reached = evaluations[-1]["validation_loss"] if evaluations else last
    if not math.isfinite(reached):
        sys.exit(f"the loss is {reached}")
    print(f"steps                         {steps[-1]['step']}")
    print(f"unigram entropy of the text   {entropy:.3f} nats per byte")
    print(f"loss at the first step        {steps[0]['loss']:.3f}")
    print(f"loss of the last steps        {last:.3f}")
    if evaluations:
        print(f"loss on unseen text           {reached:.3f}")
    shares = [s["single_expert_share"] for s in steps if "single_expert_share" in s]
    if shares:
        print(f"tokens with a single expert   {mean(shares[:RECENT]):.1%} at first, "
              f"{mean(shares[-RECENT:]):.1%} at last")
    if reached > entropy - MARGIN:
        sys.exit(f"the model learned next to nothing: {reached:.3f} is not below the entropy "
                 f"{entropy:.3f} by {MARGIN}")


if __name__ == "__main__":
    main()
