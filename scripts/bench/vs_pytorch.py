"""adagate beside PyTorch on the CPU: same model, same initial weights, same batches, turn by turn.

Started by vs_pytorch.sh, which makes the Python environment. Three programs take turns, round after
round: PyTorch as it comes, PyTorch with a tuned allocator and bound threads, adagate. Reported per
case: tokens/s (median over rounds of each run's median step, and the spread), whole-step GFLOP/s,
share of the measured peak, peak memory, agreement of the losses. FLOPs per token, forward and
backward: 6 x (matrix parameters a token meets, a tied head once, from the measured share of
two-expert tokens) + 6 x layers x width x context (causal attention).
"""

import argparse
import fnmatch
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytorch_cases

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TUNED = {
    # Keep every page: nothing goes back to the system, large blocks come from the heap.
    "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(256 << 20), "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "OMP_PROC_BIND": "true", "OMP_PLACES": "cores",
}
# |loss - loss| over the run's steps. bf16: its own rounding noise, and routing flips near borders.
LOSS_TOLERANCE = {"fp32": 2e-3, "bf16": 3e-2}
# F.linear_cross_entropy under autocast returns the loss itself in bf16: spaced 0.0625 near 10.
CHUNKED_BF16_TOLERANCE = 8e-2


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true",
                        help="one small case, few steps, one round, no choice of options")
    parser.add_argument("--case", action="append", metavar="NAME",
                        help="name or pattern such as 'dense-*-fp32-1x2'; may be repeated")
    parser.add_argument("--list", action="store_true", help="print the cases and end")
    parser.add_argument("--steps", type=int, default=12, help="of each run (default 12)")
    parser.add_argument("--warmup", type=int, default=4, help="steps not timed (default 4)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each program (default 3)")
    parser.add_argument("--adagate", type=Path, default=ROOT / "build/cpu-release/bin/adagate",
                        help="the program; PyTorch alone is measured if it is missing")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/vs_pytorch",
                        help="folder of weights, tokens, results")
    parser.add_argument("--peak-json", type=Path,
                        help="measured peaks, from adagate bench --json or {\"fp32_gflops\": x, "
                             "\"bf16_gflops\": y}; default: measured by adagate at the start")
    parser.add_argument("--jemalloc", help="path of libjemalloc.so: a fourth program under it")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="handed to adagate train")
    parser.add_argument("--options", default="", metavar="optimizer=fused,head=plain,...",
                        help="PyTorch's options; default: chosen per case by measurement")
    return parser.parse_args()


class Watch:
    """Runs a command group, following the resident high-water mark of all its processes."""

    def __init__(self):
        self.peak = {}  # by (pid, start): bytes

    def look(self, roots):
        children = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                children.setdefault(int(fields[1]), []).append(int(entry.name))
        pending = list(roots)
        while pending:
            pid = pending.pop()
            pending += children.get(pid, [])
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            for line in status.splitlines():
                if line.startswith("VmHWM:"):
                    self.peak[pid] = max(self.peak.get(pid, 0), int(line.split()[1]) * 1024)

    def run(self, commands, log):
        """commands: list of (argv, environment), started together. Returns peak bytes, summed."""
        with open(log, "w") as output:
            running = [subprocess.Popen(argv, env=env, stdout=output, stderr=subprocess.STDOUT)
                       for argv, env in commands]
            while any(p.poll() is None for p in running):
                self.look([p.pid for p in running if p.poll() is None])
                time.sleep(0.1)
        for process, (argv, _) in zip(running, commands):
            if process.returncode != 0:
                tail = "\n".join(Path(log).read_text().splitlines()[-15:])
                raise RuntimeError(f"{argv[0]} ended with {process.returncode}; {log}:\n{tail}")
        return sum(self.peak.values())


def cpu_shares(case):
    """The CPUs of each rank, as comma separated lists."""
    usable = sorted(os.sched_getaffinity(0))
    return [",".join(str(c) for c in usable[r * case.threads:(r + 1) * case.threads])
            for r in range(case.ranks)]


def run_pytorch(case, folder, steps, options, extra_environment, bind, tag):
    result = folder / f"pytorch_{tag}.json"
    result.unlink(missing_ok=True)
    commands = []
    for rank in range(case.ranks):
        environment = {**os.environ, "OMP_NUM_THREADS": str(case.threads), **extra_environment}
        if case.ranks > 1:
            environment.update(RANK=str(rank), WORLD_SIZE=str(case.ranks),
                               MASTER_ADDR="127.0.0.1", MASTER_PORT="29517")
        argv = [sys.executable, str(HERE / "pytorch_decoder.py"), "--case-dir", str(folder),
                "--steps", str(steps), "--threads", str(case.threads), "--result", str(result)]
        for key, value in options.items():
            argv += [f"--{key}", value]
        if bind:
            argv += ["--cpus", cpu_shares(case)[rank]]
        commands.append((argv, environment))
    peak = Watch().run(commands, folder / f"pytorch_{tag}.log")
    measured = json.loads(result.read_text())
    measured["peak_memory"] = max(peak, measured["peak_memory"])
    return measured


def run_adagate(args, case, folder, steps):
    output = folder / "run"
    shutil.rmtree(output, ignore_errors=True)
    argv = [str(args.adagate), "train", str(folder / "adagate.yaml"),
            "--set", f"train.length={steps}s"]
    for setting in args.set:
        argv += ["--set", setting]
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1",
                   "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    if case.ranks > 1:
        argv = ["mpirun", "-n", str(case.ranks), *argv]
    peak = Watch().run([(argv, environment)], folder / "adagate.log")
    return {**read_metrics(output / "metrics.jsonl"), "peak_memory": peak}


def byte_tokenizer_hash(args):
    """From a token file that adagate itself writes; None without adagate."""
    if not args.adagate.exists():
        return None
    text, tokens = args.work / "sample.txt", args.work / "sample.tokens"
    text.write_text("abc\n")
    subprocess.run([str(args.adagate), "tokenize", str(text), "--tokenizer", "byte", "--output",
                    str(tokens)], check=True, stdout=subprocess.DEVNULL)
    return pytorch_cases.read_tokenizer_hash(tokens)


def measured_peaks(args):
    """GFLOP/s by precision on this machine; empty without adagate."""
    path = args.peak_json
    if not path:
        if not args.adagate.exists():
            return {}
        path = args.work / "peaks.json"
        # The peaks come first in the kernels' section; the kernels themselves are kept tiny.
        tiny = ["--tokens", "16", "--width", "16", "--hidden", "16", "--heads", "2",
                "--vocabulary", "64", "--context", "8", "--seconds", "0.02"]
        subprocess.run([str(args.adagate), "bench", "--section", "kernels", *tiny, "--json",
                        str(path)], check=True, stdout=subprocess.DEVNULL)
    return pytorch_cases.load_peaks(path)


def read_metrics(path):
    """The figures of each training step from adagate's metrics.jsonl."""
    measured = {"losses": [], "step_seconds": [], "two_expert_share": []}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        if "loss" not in record:  # an evaluation
            continue
        measured["losses"].append(record["loss"])
        measured["step_seconds"].append(record["seconds"])
        single = record.get("single_expert_share")
        measured["two_expert_share"].append(0.0 if single is None else 1.0 - single)
    return measured


def parse_options(text):
    return dict(pair.split("=", 1) for pair in text.split(",") if pair)


def choose_options(case, folder, steps=6, warmup=2):
    """The fastest PyTorch options, one after another: each is tried on the best so far."""
    chosen = {"optimizer": "fused", "head": "plain", "experts": "loop", "compile": "none"}
    rivals = [("head", "chunked"), ("optimizer", "foreach"), ("compile", "blocks")]
    if case.every:
        rivals.append(("experts", "grouped"))

    def seconds(options):
        run = run_pytorch(case, folder, steps, options, {}, False, "choice")
        return statistics.median(run["step_seconds"][warmup:])

    best = seconds(chosen)
    tried = [{**chosen, "seconds": best}]
    for key, value in rivals:
        options = {**chosen, key: value}
        try:
            time_needed = seconds(options)
        except RuntimeError as error:
            tried.append({**options, "error": str(error).splitlines()[-1]})
            continue
        tried.append({**options, "seconds": time_needed})
        if time_needed < best:
            best, chosen = time_needed, options
    return chosen, tried


def calibrate(folder, config):
    """The adaptive threshold for the wanted share of two-expert tokens."""
    (folder / "case.json").write_text(json.dumps(config))
    result = folder / "threshold.json"
    subprocess.run([sys.executable, str(HERE / "pytorch_decoder.py"), "--case-dir", str(folder),
                    "--calibrate", str(pytorch_cases.TWO_EXPERT_SHARE), "--result", str(result)],
                   check=True)
    return json.loads(result.read_text())["threshold"]


def summarise(case, config, runs, warmup, peaks):
    """Figures of one program from its runs over the rounds."""
    import pytorch_model
    context, batch = config["model"]["context"], config["train"]["batch"]
    speeds = [batch * context / statistics.median(r["step_seconds"][warmup:]) for r in runs]
    share = statistics.mean(runs[0]["two_expert_share"][warmup:])
    flops = pytorch_model.flops_per_token(config, 1.0 + share)
    active = pytorch_model.active_parameters(config, 1.0 + share)
    speed = statistics.median(speeds)
    summary = {
        "tokens_per_second": speed, "slowest": min(speeds), "fastest": max(speeds),
        "gflops": speed * flops / 1e9, "gflops_6n": speed * 6 * active / 1e9,
        "two_expert_share": share,
        "peak_memory": max(r["peak_memory"] for r in runs),
        "losses": runs[0]["losses"],
    }
    if case.precision in peaks:
        summary["share_of_peak"] = summary["gflops"] / peaks[case.precision]
    return summary


def run_case(args, case, peaks, tokenizer_hash):
    folder = args.work / case.name
    config = pytorch_cases.prepare(case, folder, args.steps, calibrate, tokenizer_hash)
    options, tried = parse_options(args.options), []
    if not options and not args.quick:
        options, tried = choose_options(case, folder)
    programs = {
        "pytorch": lambda: run_pytorch(case, folder, args.steps, options, {}, False, "plain"),
        "pytorch_tuned": lambda: run_pytorch(case, folder, args.steps, options, TUNED, True,
                                             "tuned"),
    }
    if args.jemalloc:
        programs["pytorch_jemalloc"] = lambda: run_pytorch(
            case, folder, args.steps, options,
            {"LD_PRELOAD": args.jemalloc, "MALLOC_CONF": "thp:always,dirty_decay_ms:-1"}, True,
            "jemalloc")
    if args.adagate.exists():
        programs["adagate"] = lambda: run_adagate(args, case, folder, args.steps)
    runs = {name: [] for name in programs}
    for turn in range(args.rounds):
        for name, run in programs.items():
            runs[name].append(run())
            speed = statistics.median(runs[name][-1]["step_seconds"][args.warmup:])
            print(f"{case.name} round {turn + 1} {name}: {speed * 1000:.0f} ms/step", flush=True)
    record = {"case": case.name, "options": options, "tried": tried,
              "torch": runs["pytorch"][0]["torch"],
              "programs": {name: summarise(case, config, runs[name], args.warmup, peaks)
                           for name in programs}}
    losses = {name: p["losses"] for name, p in record["programs"].items()}
    tolerance = LOSS_TOLERANCE[case.precision]
    if case.precision == "bf16" and options.get("head") == "chunked":
        tolerance = CHUNKED_BF16_TOLERANCE
    record["loss_difference"] = {
        name: max(abs(a - b) for a, b in zip(values, losses["pytorch"], strict=True))
        for name, values in losses.items() if name != "pytorch"}
    record["losses_agree"] = all(d <= tolerance for d in record["loss_difference"].values())
    return record


def table(records):
    lines = ["| case | program | tokens/s | spread | vs PyTorch | GFLOP/s | of peak | peak GB | "
             "loss first, last | max loss difference |", "|" + "---|" * 10]
    for record in records:
        base = record["programs"]["pytorch"]["tokens_per_second"]
        for name, p in record["programs"].items():
            peak = f"{p['share_of_peak']:.0%}" if "share_of_peak" in p else "-"
            apart = record["loss_difference"].get(name)
            lines.append(
                f"| {record['case']} | {name} | {p['tokens_per_second']:.0f} | "
                f"{p['slowest']:.0f}-{p['fastest']:.0f} | {p['tokens_per_second'] / base:.2f} | "
                f"{p['gflops']:.0f} | {peak} | {p['peak_memory'] / 1e9:.2f} | "
                f"{p['losses'][0]:.4f}, {p['losses'][-1]:.4f} | "
                f"{'-' if apart is None else format(apart, '.1e')} |")
    return "\n".join(lines) + "\n"


def main():
    args = arguments()
    cases = pytorch_cases.all_cases()
    if args.list:
        print("\n".join(case.name for case in cases))
        return
    patterns = args.case or (["top2-every2-8192-fp32-1x2"] if args.quick else ["*"])
    cases = [c for c in cases if any(fnmatch.fnmatch(c.name, p) for p in patterns)]
    if not cases:
        sys.exit(f"no case matches {patterns}; --list prints them")
    if args.quick:
        args.steps, args.warmup, args.rounds = 5, 2, 1
    if args.steps <= args.warmup:
        sys.exit(f"--steps {args.steps} leaves nothing to time after --warmup {args.warmup}")
    if not args.adagate.exists():
        print(f"{args.adagate} is missing: measuring PyTorch alone")
    args.work.mkdir(parents=True, exist_ok=True)
    peaks = measured_peaks(args)
    tokenizer_hash = byte_tokenizer_hash(args)
    records = []
    for case in cases:
        records.append(run_case(args, case, peaks, tokenizer_hash))
        # After every case, so that an interrupted run keeps what it has.
        (args.work / "results.json").write_text(json.dumps(records, indent=1) + "\n")
        (args.work / "results.md").write_text(table(records))
    print(table(records))
    apart = [r["case"] for r in records if not r["losses_agree"]]
    if apart:
        sys.exit(f"losses differ by more than the tolerance in: {', '.join(apart)}")


if __name__ == "__main__":
    main()
