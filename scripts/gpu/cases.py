"""Short trainings whose losses a GPU must share with the CPU, and how two are compared."""

import json
import math
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from steps import Failed

ROOT = Path(__file__).resolve().parents[2]
# ADAGATE_GPU_CHECK_SMALL=1: sizes for an emulator, when the CPU's figures are made and compared.
SMALL = {"model.layers": 2, "model.width": 32, "model.heads": 2, "model.context": 16,
         "train.batch": 4} if os.environ.get("ADAGATE_GPU_CHECK_SMALL") else {}
EXPERTS = {"moe.experts": 4, "moe.every": 2}
# |loss - loss| in nats, of every step. fp32: round-off, which AdamW makes grow from step to step.
# bf16: its rounding, and tokens near a border that choose other experts.
TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}


@dataclass(frozen=True)
class Case:
    name: str
    config: str  # under the repository
    precision: str
    steps: int
    settings: dict = field(default_factory=dict)

    def argv(self, program, device, output, steps=None, more=()):
        settings = {"precision": self.precision, "device": device,
                    "train.length": f"{steps or self.steps}s", **self.settings, **dict(more),
                    **SMALL}
        words = [program, "train", ROOT / self.config, "--output", output]
        for key, value in settings.items():
            words += ["--set", f"{key}={value}"]
        return words

    @property
    def tolerance(self):
        return TOLERANCE[self.precision]


def tiny_cases():
    routings = {"dense": {}, **{policy: {**EXPERTS, "moe.gate.policy": policy}
                                for policy in ("top2", "adaptive")}}
    return [Case(f"{name}_{precision}", "configs/gpu/tiny.yaml", precision, 100, settings)
            for precision in ("fp32", "bf16") for name, settings in routings.items()]


# GPT-2 124M on few tokens: the CPU has to do it too.
SMALL_BATCH = {"train.batch": 2, "model.context": 256}


def gpt2_cases():
    return [Case(f"gpt2_{precision}", "configs/gpu/gpt2.yaml", precision, 3, SMALL_BATCH)
            for precision in ("fp32", "bf16")]


def all_cases():
    return tiny_cases() + gpt2_cases()


def case_of(name):
    return next(case for case in all_cases() if case.name == name)


# The run that evaluate and generate work with; its checkpoint is in the pack.
KEPT_CASE = "adaptive_fp32"
EVALUATE = ["--samples", "64", "--json"]
GENERATE = ["--prompt", "First Citizen:", "--tokens", "64", "--temperature", "0", "--json"]


def train(commands, case, program, device, output, steps=None, more=(), launcher=(),
          environment=None):
    """Trains in a fresh folder; the lines of metrics.jsonl that tell of steps."""
    shutil.rmtree(output, ignore_errors=True)
    commands.call([*launcher, *case.argv(program, device, output, steps, more)], environment)
    return read_steps(Path(output))


def read_steps(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["type"] == "step"]


def losses_of(steps):
    """Nothing where a loss was not finite."""
    return [line["loss"] for line in steps]


def differences(losses, others):
    """|loss - other| of each step; infinite where one is none or not finite."""
    def is_number(value):
        return value is not None and math.isfinite(value)

    return [abs(a - b) if is_number(a) and is_number(b) else math.inf
            for a, b in zip(losses, others)]


def finite_or_none(value):
    """For JSON, which has no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def compare_losses(losses, expected, tolerance):
    """Figures of the comparison; Failed where a step differs by more than the tolerance."""
    if not losses or len(losses) > len(expected):
        raise Failed(f"{len(losses)} losses to compare with {len(expected)}")
    apart = differences(losses, expected)
    worst = max(range(len(apart)), key=apart.__getitem__)
    figures = {"steps": len(losses), "first_loss": losses[0], "last_loss": losses[-1],
               "first_difference": apart[0], "largest_difference": apart[worst],
               "tolerance": tolerance}
    figures = {key: finite_or_none(value) for key, value in figures.items()}
    if not apart[worst] <= tolerance:
        raise Failed(f"step {worst + 1}: loss {losses[worst]}, the CPU's {expected[worst]}, apart "
                     f"by more than {tolerance:g}", figures)
    return figures
