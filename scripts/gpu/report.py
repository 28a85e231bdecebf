"""OUT/report.md from OUT/report.json: what ran, on what, and the figures beside the targets.

check.sh calls it after each part; by hand: python3 scripts/gpu/report.py OUT
"""

import json
import re
import sys
from pathlib import Path

PEAK_TFLOPS = 989  # of an H100 or H200 in bf16 without sparsity, by its data sheet
MEMORY_BOUND = re.compile(r"norm|dropout|AdamW|sum of squares|embedding|bias \+ (gelu|swiglu)")


def figures_of(records, name):
    """Of a step that measured something; else nothing."""
    return next((r["figures"] for r in records if r["name"] == name and r["figures"]), {})


def rows_of(records, step, table):
    return figures_of(records, step).get(table, [])


def shown(value):
    """Three digits or more of a figure; '-' where there is none."""
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.{0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2}f}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows] + [""]


def judged(value, required, goal, smaller_is_better=False):
    if value is None:
        return "not measured"
    better = (lambda a, b: a <= b) if smaller_is_better else (lambda a, b: a >= b)
    if goal is not None and better(value, goal):
        return "goal met"
    if required is not None:
        return "met" if better(value, required) else "MISSED"
    return "goal missed"


def moe_rows(records):
    """The layer's times by (experts, routing, share of single-expert tokens)."""
    return {(row["experts"], row["routing"], row["single_percent"]): row
            for row in rows_of(records, "MoE layer", "moe")}


def bare_products_ms(records):
    """Of both matrices' products, forward and backward, at the rows of two experts per token."""
    rows = rows_of(records, "products of the MoE layer", "kernels")
    wanted = [row["ms"] for row in rows if re.fullmatch(
        r"linear( dX| dW)? (\d{4,}) x (1024 x 4096|4096 x 1024)", row["kernel"])]
    return sum(wanted) if len(wanted) == 6 else None


def slowest_memory_bound(records):
    rows = [row for step in ("kernels at the sizes of GPT-2 124M",
                             "optimizer at the size of GPT-2 124M")
            for row in rows_of(records, step, "kernels")
            if row["bound"] == "memory" and MEMORY_BOUND.search(row["kernel"])]
    return min(rows, key=lambda row: row["percent_of_limit"], default=None)


def targets(records):
    """(what, value, unit, required, goal, verdict) of each target."""
    dense = figures_of(records, "GPT-2 124M beside PyTorch")
    ours = dense.get("adagate") or {}
    speed = ours.get("tokens_per_second")
    layer = moe_rows(records)
    top2 = layer.get((16, "balanced", 0))
    both, single = layer.get((8, "balanced", 0)), layer.get((8, "balanced", 80))
    bare, slowest = bare_products_ms(records), slowest_memory_bound(records)
    over_dense = 1 / top2["vs_dense"] if top2 and top2["vs_dense"] else None
    over_bare = top2["ms"] / bare if top2 and bare else None
    less = single["ms"] / both["ms"] if both and single else None
    share = slowest["percent_of_limit"] / 100 if slowest else None
    kernel = f" ({slowest['kernel']})" if slowest else ""
    values = [
        ("GPT-2 124M, bf16, batch 64 x 1,024: tokens/s", speed, 560e3, 616e3, False),
        ("the same over compiled PyTorch", dense.get("ratio"), 1.1, 1.2, False),
        ("MoE layer, 16 experts, top-2, over a dense layer of equal active FLOPs", over_dense,
         1.25, None, True),
        ("the same over its bare products", over_bare, None, 1.3, True),
        ("MoE layer with 20 % two-expert tokens over top-2", less, 0.70, None, True),
        (f"slowest memory-bound kernel, share of the copy's rate{kernel}", share, 0.80, None,
         False)]
    return [(what, value, required, goal, judged(value, required, goal, smaller))
            for what, value, required, goal, smaller in values]


def target_lines(records, gpu):
    rows = [(what, shown(value), shown(required), shown(goal), verdict)
            for what, value, required, goal, verdict in targets(records)]
    return ["## Targets", "", f"Those of an H200; measured on: {gpu}.", "",
            *table(["what", "measured", "required", "goal", "verdict"], rows)]


def mfu(run, flops_per_token, peak):
    if not (run and flops_per_token and peak):
        return "-"
    return f"{run['tokens_per_second'] * flops_per_token / peak / 1e12:.1%}"


def model_lines(records, measured_peak):
    rows = []
    for record in records:
        figures = record["figures"]
        if not figures.get("adagate"):
            continue
        flops = figures["adagate"]["flops_per_token"]
        for program in ("adagate", "pytorch"):
            run = figures.get(program)
            if not run:
                rows.append((record["name"], program, figures["no_pytorch_because"],
                             *["-"] * 7))
                continue
            apart = figures.get("largest_loss_difference")
            memory = run.get("peak_memory_bytes")
            rows.append((record["name"], program, shown(run["tokens_per_second"]),
                         f"{run['slowest']:,.0f}-{run['fastest']:,.0f}",
                         shown(figures.get("ratio")) if program == "adagate" else "1",
                         mfu(run, flops, PEAK_TFLOPS), mfu(run, flops, measured_peak),
                         f"{run['two_expert_share']:.1%}",
                         f"{memory / 1e9:.1f}" if memory else "-",
                         "-" if apart is None else f"{apart:.1e}"))
    if not rows:
        return []
    return ["## Whole models beside PyTorch", "",
            f"FLOPs as metrics.jsonl counts them; MFU over {PEAK_TFLOPS} TFLOP/s, and over the "
            f"measured product of {shown(measured_peak)} TFLOP/s.", "",
            *table(["model", "program", "tokens/s", "spread", "over PyTorch", "MFU",
                    "of measured", "two-expert tokens", "peak GB", "largest loss difference"],
                   rows), *phase_lines(records)]


def phase_lines(records):
    runs = [(r["name"], r["figures"]["adagate"]["phases"]) for r in records
            if r["figures"].get("adagate")]
    names = list(runs[0][1])
    return ["Milliseconds of adagate's step by phase:", "",
            *table(["model", *names], [(name, *(f"{1e3 * phases[p]:.1f}" for p in names))
                                       for name, phases in runs])]


def bench_lines(records):
    lines = []
    for record in records:
        for name, rows in record["figures"].items():
            if name not in ("peaks", "kernels", "moe") or not rows:
                continue
            head = list(rows[0])
            lines += [f"### {record['name']}: {name}", "",
                      *table(head, [[shown(row[key]) for key in head] for row in rows])]
    return ["## Tables of adagate bench", "", *lines] if lines else []


def part_lines(records):
    """Single parts in both programs."""
    theirs = figures_of(records, "single parts in PyTorch")
    if not theirs:
        return []
    kernels = {row["kernel"]: row["ms"] for row in
               rows_of(records, "kernels at the sizes of GPT-2 124M", "kernels")}
    peaks = {row["what"]: row for row in
             rows_of(records, "kernels at the sizes of GPT-2 124M", "peaks")}
    layer = {experts: row["ms"] for (experts, routing, single), row in moe_rows(records).items()
             if routing == "balanced" and single == 0}
    copies = [row["gbytes"] for row in peaks.values() if row["gbytes"]]
    product = peaks.get("bf16 product", {}).get("gflops")
    rows = [("copy, GB/s", copies[-1] if copies else None, theirs["copy_gbytes"]),
            ("product 8192 x 8192 x 8192 in bf16, TFLOP/s", product and product / 1e3,
             theirs["product_tflops"]),
            ("attention, ms", kernels.get("attention, context 1024"),
             theirs["attention"]["forward_ms"]),
            ("attention, backward, ms", kernels.get("attention, context 1024, backward"),
             theirs["attention"]["backward_ms"]),
            *((f"MoE layer, {experts} experts, top-2, ms", layer.get(int(experts)), ms)
              for experts, ms in theirs["moe_ms"].items())]
    return ["## Single parts beside PyTorch", "",
            "PyTorch's layer has a norm and a residual besides.", "",
            *table(["part", "adagate", "PyTorch"],
                   [(what, shown(ours), shown(other)) for what, ours, other in rows])]


def profile_lines(records):
    kernels = figures_of(records, "kernels of a step by Nsight Compute")
    worst = figures_of(records, "the three worst kernels")
    lines = []
    if kernels:
        head = ["name", "launches", "ms", "gbytes_per_second"]
        lines += ["## Kernels of a step, by Nsight Compute", "", *table(
            head, [[shown(kernel[key]) for key in head] for kernel in kernels["kernels"]])]
    for name, figures in worst.items():
        lines += [f"{name}: " + ", ".join(f"{k} {v}" for k, v in figures.items()), ""]
    return lines


def step_lines(records, part):
    rows = [(r["name"], r["outcome"], f"{r['seconds']:.1f}", r["reason"].replace("|", "/"),
             ", ".join(f"{key} {value:.2e}" if isinstance(value, float) else f"{key} {value}"
                       for key, value in r["figures"].items()
                       if not isinstance(value, (dict, list)) and value not in (None, "")))
            for r in records if r["part"] == part]
    if not rows:
        return []
    counts = [f"{sum(r[1] == kind for r in rows)} {kind}"
              for kind in ("passed", "failed", "skipped")]
    return [f"## {part.capitalize()}: {', '.join(counts)}", "",
            *table(["step", "outcome", "s", "reason", "figures"], rows)]


def measured_peak(records):
    """TFLOP/s of the large bf16 product, adagate's or PyTorch's, whichever is faster."""
    rates = [row["gflops"] / 1e3 for record in records for row in record["figures"].get("peaks", [])
             if row["what"].startswith("bf16") and row["gflops"]]
    rates += [figures_of(records, "single parts in PyTorch").get("product_tflops", 0)]
    return max(rates) or None


def markdown(values):
    machine, records = values["machine"], values["records"]
    gpu = machine.get("gpu", "unknown")
    state = " with uncommitted changes" if machine.get("uncommitted_changes") else ""
    lines = [f"# adagate on {gpu}", "",
             f"Commit {machine.get('commit', 'unknown')}{state}; driver "
             f"{machine.get('driver', 'unknown')}, {machine.get('memory', '?')} of memory, glibc "
             f"{machine.get('glibc', '?')}, {machine.get('cpus', '?')} CPUs. Made by:", "", "```",
             "scripts/gpu/pack.sh", "scripts/gpu/check.sh correctness OUT",
             "scripts/gpu/check.sh speed OUT", "```", "",
             "Each step's commands are in report.json, their output in the logs beside it.", ""]
    speed = [r for r in records if r["part"] == "speed"]
    if speed:
        lines += target_lines(speed, gpu) + model_lines(speed, measured_peak(speed))
    lines += step_lines(records, "correctness") + step_lines(records, "speed")
    lines += part_lines(speed) + profile_lines(speed) + bench_lines(speed)
    return "\n".join(lines)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: report.py OUT")
    out = Path(sys.argv[1])
    try:
        values = json.loads((out / "report.json").read_text())
    except (OSError, ValueError) as error:
        sys.exit(f"report: {out / 'report.json'}: {error}")
    (out / "report.md").write_text(markdown(values))
    print(f"{out / 'report.md'}; to keep it: docs/benchmarks/")


if __name__ == "__main__":
    main()
