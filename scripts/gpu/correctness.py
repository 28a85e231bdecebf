"""Part one: does the GPU compute what the CPU computes? What would invalidate the rest comes
first."""

import hashlib
import json
import re
from pathlib import Path

import cases
import machine
from steps import Failed, Skip, Step

TESTED_OPS, TESTED_TRAINING = "CUDA: *", "CUDA training*"
# Each rank of one GPU a host of its own: NCCL then takes it, and sends through sockets.
ONE_GPU = {"NCCL_NET": "Socket", "NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": "1",
           "NCCL_MNNVL_ENABLE": "0", "NCCL_NVLS_ENABLE": "0", "NCCL_CUMEM_ENABLE": "0",
           "NCCL_MAX_CTAS": "2", "NCCL_DEBUG": "WARN"}
ONE_HOST_EACH = ["bash", "-c", 'export NCCL_HOSTID=rank$OMPI_COMM_WORLD_RANK; exec "$@"', "_"]


class Correctness:
    def __init__(self, scratch, steps):
        self.scratch, self.steps = Path(scratch), steps
        self.device = machine.device()
        self.reference = machine.pack() / "reference"

    def expected(self):
        path = self.reference / "figures.json"
        if not path.exists():
            raise Skip("the pack has no figures of the CPU: scripts/gpu/pack.sh")
        return json.loads(path.read_text())

    def train(self, commands, case, tag="", **options):
        more = {"checkpoint.save_at_end": "false", **options.pop("more", {})}
        return cases.train(commands, case, machine.program("adagate"), self.device,
                           self.scratch / f"{case.name}{tag}", more=more,
                           steps=min(case.steps, self.steps), **options)

    def losses(self, case, tag="", **options):
        """A step: training on the GPU gives the CPU's losses."""

        def run(commands):
            expected = self.expected()["losses"][case.name]
            lines = self.train(commands, case, tag, **options)
            figures = cases.compare_losses(cases.losses_of(lines), expected, case.tolerance)
            return {**figures, "seconds_of_a_step": lines[-1]["seconds"]}

        return run

    def twice_the_same(self, commands):
        case, runs = cases.case_of("adaptive_bf16"), []
        for tag in ("_once", "_again"):
            lines = self.train(commands, case, tag, more={"checkpoint.save_at_end": "true"})
            figures = [[line[key] for key in ("loss", "auxiliary_loss", "grad_norm",
                                              "single_expert_share")] for line in lines]
            runs.append((figures, digests_of(self.scratch / f"{case.name}{tag}")))
        (first, weights), (second, other_weights) = runs
        differing = [i + 1 for i, (a, b) in enumerate(zip(first, second)) if a != b]
        if differing:
            raise Failed(f"two runs of one seed differ from step {differing[0]} on")
        if not weights or weights != other_weights:
            raise Failed("two runs of one seed have other weights at their end")
        return {"steps": len(first), "files_of_weights": len(weights)}

    def evaluate(self, commands):
        expected = self.expected()["evaluate"]
        got = json.loads(commands.call(
            [machine.program("adagate"), "evaluate", self.reference / "run", "--device",
             self.device, "--data", cases.ROOT / "data/samples/shakespeare.txt",
             *cases.EVALUATE]))
        return cases.compare_losses([got["loss"]], [expected["loss"]], 2e-5)

    def generate(self, commands):
        expected = self.expected()["generate"]["tokens"]
        got = json.loads(commands.call(
            [machine.program("adagate"), "generate", self.reference / "run", "--device",
             self.device, *cases.GENERATE]))["tokens"]
        if got != expected:
            place = next((i for i, (a, b) in enumerate(zip(got, expected)) if a != b),
                         min(len(got), len(expected)))
            raise Failed(f"the most probable token {place + 1} differs from the CPU's")
        return {"tokens": len(got)}

    def over_ranks(self, exchange, ranks, settings=None, environment=None, wrapper=()):
        """A step: ranks under mpirun, sharing a GPU where there are too few, give the losses of
        one rank on the CPU."""
        case = cases.case_of("top2_fp32")

        def run(commands):
            more = {**(settings or {})}
            if machine.has_key(commands, "parallel.exchange"):
                more["parallel.exchange"] = exchange
            elif exchange == "nccl":
                raise Skip("this build knows no NCCL")
            if exchange == "nccl":
                machine.program("libadagate_nccl.so")
            losses = self.losses(case, f"_{exchange}_{ranks}", more=more, environment=environment,
                                 launcher=["mpirun", "-n", str(ranks), *wrapper])
            return {**losses(commands), "ranks": ranks, "exchange": exchange}

        return run

    def sanitize(self, tool, names):
        """A step: one of compute-sanitizer's tools on whole steps of training, small ones."""

        def run(commands):
            sanitizer, found = machine.tool("compute-sanitizer"), {}
            for name in names:
                case = cases.case_of(name)
                more = {"checkpoint.save_at_end": "false", "train.batch": 2, "model.context": 64,
                        "model.layers": 2}
                argv = case.argv(machine.program("adagate"), self.device,
                                 self.scratch / f"{tool}_{name}", 2, more)
                text = commands.call([sanitizer, "--tool", tool, "--error-exitcode", "9", *argv],
                                     codes=range(256))
                found[name] = judge_sanitizer(tool, text + commands.log[-1], commands.code)
            return found

        return run


def digests_of(run):
    """Of the tensors in a run's newest checkpoint, by file."""
    files = sorted(run.glob("checkpoints/step-*/**/*.safetensors"))
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files}


def judge_sanitizer(tool, text, code):
    if re.search(r"(?i)device not supported|unable to (?:find|initialize)", text):
        raise Skip(f"{tool}: the tool doesn't work on this device")
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)[^\n]*", text)
    if not summary:
        raise Failed(f"{tool} ended with {code} and without a summary")
    if code != 0 or any(int(count) for count in summary):
        raise Failed(f"{tool}: {' + '.join(summary)} findings (status {code})")
    return "no findings"


def catch_tests(*names):
    """A step: tests of test_gpu by name."""

    def run(commands):
        text = commands.call([machine.program("test_gpu"), *names, "--durations", "yes"])
        if "No tests ran" in text or "No test cases matched" in text:
            raise Skip(f"test_gpu has no test {' '.join(names)}")
        ran = re.search(r"(\d+) assertions? in (\d+) test cases?", text)
        return {"assertions": int(ran[1]), "tests": int(ran[2])} if ran else {}

    return run


def conformance(ranks, *words, environment=None, wrapper=()):
    """A step: the communicator's suite, on memory of GPUs, under mpirun."""

    def run(commands):
        suite = machine.program("gpu_ranks_program")
        if "nccl" in words:
            machine.program("libadagate_nccl.so")
        text = commands.call(["mpirun", "-n", str(ranks), *wrapper, suite, *words], environment)
        return {"ranks": ranks, "cases": len(re.findall(r"\d\.\d+ s$", text, re.M))}

    return run


def warm_up_pytorch(commands):
    """Compiles what part two measures beside adagate, so that its cache is filled by then."""
    machine.run_python(commands, "torch_gpt2.py", "compile")


def run_part(runner, report, scratch, steps):
    part = Correctness(scratch, steps)
    runner.run(Step("machine and libraries", 15, machine.describe(report), required=True))
    runner.run(Step("adagate finds the GPU", 20, machine.devices(report), required=True))
    runner.run(Step("every op against the CPU", 80, catch_tests(TESTED_OPS)))
    runner.run(Step("training of thread ranks against the CPU", 45, catch_tests(TESTED_TRAINING)))
    runner.run(Step("same seed twice, bit for bit", 25, part.twice_the_same))
    runner.start(Step("memcheck of training steps", 120, part.sanitize(
        "memcheck", ["adaptive_fp32", "dense_bf16", "adaptive_bf16"])))
    runner.start(Step("compile PyTorch's model", 150, warm_up_pytorch))
    for case in cases.tiny_cases():
        runner.run(Step(f"losses of {case.name}", 20, part.losses(case)))
    for case in cases.gpt2_cases():
        runner.run(Step(f"losses of {case.name}", 30, part.losses(case)))
    runner.run(Step("loss of a trained model", 10, part.evaluate))
    runner.run(Step("most probable tokens of a trained model", 10, part.generate))
    runner.run(Step("other tests on the GPU", 30,
                    catch_tests(f"~{TESTED_OPS}", f"~{TESTED_TRAINING}")))
    run_ranks(runner, part)
    runner.run(Step("racecheck of training steps", 60, part.sanitize(
        "racecheck", ["adaptive_fp32", "adaptive_bf16"]), least=10))


def run_ranks(runner, part):
    two_of_four = {"parallel.expert": 2}
    runner.run(Step("communicator through the host, 4 ranks", 20, conformance(4, "host")))
    runner.run(Step("training through the host, 4 ranks", 20,
                    part.over_ranks("host", 4, two_of_four)))
    runner.run(Step("communicator by NCCL, one rank", 15, conformance(1, "nccl")))
    runner.run(Step("training by NCCL, one rank", 15, part.over_ranks("nccl", 1)))
    runner.run(Step("communicator by NCCL, two ranks on one GPU", 30,
                    conformance(2, "nccl", environment=ONE_GPU, wrapper=ONE_HOST_EACH)))
    runner.run(Step("training by NCCL, two ranks on one GPU", 20,
                    part.over_ranks("nccl", 2, two_of_four, ONE_GPU, ONE_HOST_EACH)))
