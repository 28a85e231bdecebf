"""Part two: how fast? GPT-2 124M beside PyTorch in turns, the MoE layer, kernels against what the
machine can do. What the targets are about comes first; the rest as far as the time goes."""

import csv
import io
import json
import re
import statistics
import sys
from pathlib import Path

import cases
import machine
from steps import Failed, Skip, Step

sys.path.insert(0, str(cases.ROOT / "scripts/bench"))

WARMUP = 5  # steps of a training before the timed ones
LOSS_TOLERANCE = 3e-2  # |loss - PyTorch's| in bf16, which chooses other experts near a border
MODEL = {"--tokens": 65536, "--context": 1024, "--width": 768, "--hidden": 3072, "--heads": 12,
         "--vocabulary": 50304}
LAYER = {"--tokens": 32768, "--context": 1024, "--width": 1024, "--hidden": 4096, "--heads": 16,
         "--vocabulary": 8192}
# Of rows that take two experts each: the bare products of equal active FLOPs.
LAYER_PRODUCTS = {**LAYER, "--tokens": 65536}
NCU_METRICS = ["gpu__time_duration.sum", "dram__bytes_read.sum", "dram__bytes_write.sum"]


class Speed:
    def __init__(self, report, scratch, steps):
        self.report, self.scratch = report, Path(scratch)
        self.steps = max(WARMUP + 2, min(steps, 20))
        self.worst = []  # kernels, by the time that better ones would save

    def bench(self, section, sizes, seconds, more=()):
        """A step: tables of adagate bench."""

        def run(commands):
            path = self.scratch / "bench.json"
            path.unlink(missing_ok=True)
            words = [word for size in sizes.items() for word in size]
            commands.call([machine.program("adagate"), "bench", "--section", section, "--device",
                           machine.device(), "--seconds", seconds, "--json", path, *words, *more])
            tables = json.loads(path.read_text())
            return {name: table["rows"] for name, table in tables.items()}

        return run

    def pytorch_parts(self, commands):
        return json.loads(machine.run_python(commands, "torch_parts.py"))

    # One model in both programs.

    def effective_config(self, commands, config, settings):
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        return commands.call([machine.program("adagate"), "config", cases.ROOT / config, *words])

    def tokenizer_hash(self, commands):
        import pytorch_cases
        text, tokens = self.scratch / "sample.txt", self.scratch / "sample.tokens"
        text.write_text("abc\n")
        commands.call([machine.program("adagate"), "tokenize", text, "--tokenizer", "byte",
                       "--output", tokens])
        return pytorch_cases.read_tokenizer_hash(tokens)

    def prepare(self, commands, config, settings):
        """Weights and tokens that both programs start from; the settings that name them."""
        folder = self.scratch / f"weights_{settings.get('moe.experts', 0)}"
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(self.effective_config(commands, config, settings))
        result = folder / "prepared.json"
        try:
            tokenizer = self.tokenizer_hash(commands)
        except ImportError as error:
            raise Skip(f"this machine's python3 has no {error.name}") from None
        machine.run_python(commands, "torch_gpt2.py", "prepare", "--config",
                           folder / "config.yaml", "--folder", folder, "--steps", self.steps,
                           "--tokenizer-hash", tokenizer, "--result", result)
        threshold = json.loads(result.read_text())["threshold"]
        settings = {**settings, "data.train": folder / "train.tokens", "data.shuffle": "false",
                    "checkpoint.initial_weights": folder / "init.safetensors"}
        if threshold is not None:
            settings["moe.gate.threshold"] = threshold
        (folder / "config.yaml").write_text(self.effective_config(commands, config, settings))
        return folder, settings

    def train_adagate(self, commands, config, settings):
        case = cases.Case("speed", config, "bf16", self.steps, settings)
        lines = cases.train(commands, case, machine.program("adagate"), machine.device(),
                            self.scratch / "speed_run")
        timed = lines[WARMUP:]
        seconds, tokens = (sum(line[key] for line in timed) for key in ("seconds", "targets"))
        share = [line.get("single_expert_share") for line in timed]
        return {"losses": cases.losses_of(lines), "tokens_per_second": tokens / seconds,
                "seconds_per_step": seconds / len(timed),
                "flops_per_token": sum(line["flops"] for line in timed) / tokens,
                "peak_memory_bytes": timed[-1]["peak_memory_bytes"],
                "two_expert_share": 0.0 if share[0] is None else 1 - statistics.mean(share),
                "phases": {name: statistics.median(line["time"][name] for line in timed)
                           for name in timed[0]["time"]}}

    def train_pytorch(self, commands, folder):
        result = folder / "pytorch.json"
        machine.run_python(commands, "torch_gpt2.py", "train", "--config",
                           folder / "config.yaml", "--folder", folder, "--steps", self.steps,
                           "--warmup", WARMUP, "--result", result)
        return json.loads(result.read_text())

    def pair(self, config, settings=None, rounds=1):
        """A step: adagate and PyTorch in turns, from the same weights and tokens."""

        def run(commands):
            ours, theirs, reason = [], [], ""
            try:
                folder, started = self.prepare(commands, config, settings or {})
            except Skip as missing:
                folder, started, reason = None, settings or {}, str(missing)
            for _ in range(rounds):
                ours.append(self.train_adagate(commands, config, started))
                if folder is None:
                    continue
                try:
                    theirs.append(self.train_pytorch(commands, folder))
                except (Failed, Skip) as error:
                    folder, reason = None, str(error)
            figures = {"adagate": summary_of(ours), "pytorch": summary_of(theirs),
                       "no_pytorch_because": reason}
            if theirs:
                figures["ratio"] = (figures["adagate"]["tokens_per_second"] /
                                    figures["pytorch"]["tokens_per_second"])
                apart = max(cases.differences(ours[0]["losses"], theirs[0]["losses"]))
                figures["largest_loss_difference"] = cases.finite_or_none(apart)
                if not apart <= LOSS_TOLERANCE:
                    raise Failed(f"losses differ from PyTorch's by {apart:.3g}", figures)
            return figures

        return run

    # Kernels of one step, one by one.

    def profile(self, commands, more=(), settings=None):
        """What Nsight Compute writes about launches of a short training."""
        case = cases.Case("profile", "configs/gpu/gpt2_top2.yaml", "bf16", 2,
                          {"train.batch": 8, **(settings or {})})
        argv = case.argv(machine.program("adagate"), machine.device(), self.scratch / "profiled")
        try:
            return commands.call([machine.tool("ncu"), "--clock-control", "none", *more, *argv])
        except Failed as error:
            if re.search(r"ERR_NVGPUCTRPERM|LibraryNotLoaded|not supported", commands.log[-1]):
                raise Skip("ncu may not read this machine's counters") from None
            raise error

    def all_kernels(self, commands):
        text = self.profile(commands, ["--csv", "--page", "raw", "--metrics",
                                       ",".join(NCU_METRICS), "--launch-count", "1000"])
        kernels = kernels_of(text)
        if not kernels:
            raise Failed("ncu saw no kernel")
        ceiling = max(kernel["gbytes_per_second"] for kernel in kernels)
        own = [k for k in kernels if not re.search(r"cutlass|cublas|gemm|nvjet|cudnn|xmma",
                                                   k["name"])]
        for kernel in own:
            kernel["ms_to_save"] = kernel["ms"] * (1 - kernel["gbytes_per_second"] / ceiling)
        own.sort(key=lambda kernel: -kernel["ms_to_save"])
        self.worst = [kernel["name"] for kernel in own[:3]]
        return {"kernels": sorted(kernels, key=lambda kernel: -kernel["ms"])[:40],
                "worst": self.worst}

    def worst_kernels(self, commands):
        if not self.worst:
            raise Skip("the kernels of a step are not known")
        found = {}
        for name in self.worst:
            text = self.profile(commands, ["--set", "basic", "--launch-count", "1",
                                           "--kernel-name", name])
            found[name] = {key: value for key, value in re.findall(
                r"^ +(Duration|Memory Throughput|DRAM Throughput|Compute \(SM\) Throughput|"
                r"Registers Per Thread|Achieved Occupancy|Theoretical Occupancy) .*?([\d.,]+)$",
                text, re.M)}
        return found


def summary_of(runs):
    """Of the rounds: the median speed and its spread, the first round's other figures."""
    if not runs:
        return None
    speeds = [run["tokens_per_second"] for run in runs]
    return {**runs[0], "tokens_per_second": statistics.median(speeds), "slowest": min(speeds),
            "fastest": max(speeds), "rounds": len(runs)}


def plain_name(signature):
    """norm of `void adagate::<unnamed>::norm<float, 256>(adagate::NormArgs)`."""
    named = re.sub(r"<unnamed>::|\(anonymous namespace\)::", "", signature.removeprefix("void "))
    return re.split(r"[<(]", named)[0].split("::")[-1]


def kernels_of(text):
    """Time and traffic by kernel, summed over its launches, of ncu's raw CSV page."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    rows = csv.DictReader(io.StringIO("\n".join(lines)))
    scale = {"nsecond": 1e-6, "ns": 1e-6, "usecond": 1e-3, "us": 1e-3, "msecond": 1, "ms": 1,
             "second": 1e3, "s": 1e3, "byte": 1, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9}
    units, total = None, {}
    for row in rows:
        if units is None:  # the first line has the units
            units = row
            continue
        value = [float(row[metric].replace(",", "")) * scale[units[metric]]
                 for metric in NCU_METRICS]
        name = plain_name(row["Kernel Name"])
        kernel = total.setdefault(name, {"name": name, "launches": 0, "ms": 0.0, "bytes": 0.0})
        kernel["launches"] += 1
        kernel["ms"] += value[0]
        kernel["bytes"] += value[1] + value[2]
    for kernel in total.values():
        kernel["gbytes_per_second"] = kernel["bytes"] / kernel["ms"] / 1e6 if kernel["ms"] else 0
    return list(total.values())


def run_part(runner, report, scratch, steps):
    part = Speed(report, scratch, steps)
    runner.run(Step("machine and libraries", 15, machine.describe(report), required=True))
    runner.run(Step("adagate finds the GPU", 20, machine.devices(report), required=True))
    runner.run(Step("GPT-2 124M beside PyTorch", 110, part.pair("configs/gpu/gpt2.yaml", rounds=2),
                    least=20))
    bf16 = ["--type", "bf16"]
    runner.run(Step("MoE layer", 40, part.bench("moe", LAYER, 0.2, [*bf16, "--rounds", 7])))
    runner.run(Step("products of the MoE layer", 30,
                    part.bench("kernels", LAYER_PRODUCTS, 0.05, bf16)))
    runner.run(Step("single parts in PyTorch", 45, part.pytorch_parts))
    runner.run(Step("kernels at the sizes of GPT-2 124M", 30,
                    part.bench("kernels", MODEL, 0.1, bf16)))
    runner.run(Step("optimizer at the size of GPT-2 124M", 20, part.bench(
        "kernels", {**MODEL, "--tokens": 4096}, 0.05, ["--type", "f32"])))
    runner.run(Step("GPT-2 124M, 8 experts, top-2", 60,
                    part.pair("configs/gpu/gpt2_top2.yaml", {"moe.experts": 8}), least=20))
    runner.run(Step("kernels of a step by Nsight Compute", 45, part.all_kernels, least=15))
    runner.run(Step("the three worst kernels", 40, part.worst_kernels, least=10))
    for experts, policy in ((16, "adaptive"), (16, "top2"), (8, "adaptive"), (8, "top1"),
                            (16, "top1")):
        runner.run(Step(f"GPT-2 124M, {experts} experts, {policy.replace('top', 'top-')}", 60,
                        part.pair(f"configs/gpu/gpt2_{policy}.yaml", {"moe.experts": experts}),
                        least=25))
