"""What both fixture generators share: the training recipe, the naming rules and the file writer.

The recipe (optimizer, clipping, schedule, accumulation) is the one that README.md states formula by
formula; a fixture's JSON repeats its numbers under config.train.
"""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

FIXTURES = Path(__file__).resolve().parent / "fixtures"


def training_config(samples, steps, accumulation):
    """The recipe under the keys of the YAML section `train`; samples are those of one step."""
    return {
        "length": f"{steps}s", "batch": samples, "accumulation": accumulation,
        "optimizer": {"name": "adamw", "learning_rate": 3e-3, "beta1": 0.9, "beta2": 0.95,
                      "epsilon": 1e-8, "weight_decay": 0.1, "clip_norm": 1.0},
        "schedule": {"warmup": "4s", "decay": "cosine", "final_ratio": 0.1},
    }


def steps_of(duration):
    assert duration.endswith("s")
    return int(duration[:-1])


def make_deterministic():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def learning_rate(step, recipe):
    """Linear warm-up, then cosine from the peak to peak * final_ratio; `step` counts from 0."""
    peak, ratio = recipe["optimizer"]["learning_rate"], recipe["schedule"]["final_ratio"]
    warmup, total = steps_of(recipe["schedule"]["warmup"]), steps_of(recipe["length"])
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / (total - warmup)
    return peak * (ratio + (1 - ratio) * 0.5 * (1 + math.cos(math.pi * progress)))


def is_decayed(name):
    """Weights and embeddings decay; biases (also the experts' [E, F] ones), gammas, betas do
    not."""
    return name.endswith(".weight") or name.startswith("embedding.")


def make_adamw(named_parameters, recipe, decays):
    """`decays(name)` tells whether the parameter is in the decayed group."""
    optimizer = recipe["optimizer"]
    groups = [
        {"params": [p for n, p in named_parameters if decays(n)],
         "weight_decay": optimizer["weight_decay"]},
        {"params": [p for n, p in named_parameters if not decays(n)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(optimizer["beta1"], optimizer["beta2"]),
                             eps=optimizer["epsilon"], foreach=False, fused=False)


def cross_entropy_sum(logits, targets):
    """Sum over the valid targets; -1 is ignored."""
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1).long(),
                           ignore_index=-1, reduction="sum")


def train(parameters, decays, loss_of_step, recipe):
    """Runs the recipe's AdamW steps. loss_of_step(step) yields the micro-batches' losses, already
    scaled so that their sum is the global batch's loss. Returns losses, gradient norms, learning
    rates."""
    optimizer = make_adamw(parameters, recipe, decays)
    losses, norms, rates = [], [], []
    for step in range(steps_of(recipe["length"])):
        rate = learning_rate(step, recipe)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for loss in loss_of_step(step):
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_([p for _, p in parameters],
                                              recipe["optimizer"]["clip_norm"], foreach=False)
        optimizer.step()
        losses.append(total)
        norms.append(norm.item())
        rates.append(rate)
    return losses, norms, rates


def next_token_batch(generator, rows, length, vocabulary, ignored_share):
    """Random tokens [rows, length] and the next token as target; a share of the targets and each
    row's last one are ignored (-1)."""
    tokens = torch.randint(0, vocabulary, (rows, length), generator=generator, dtype=torch.int32)
    targets = torch.roll(tokens, -1, dims=1)
    targets[:, -1] = -1
    ignored = torch.rand((rows, length), generator=generator) < ignored_share
    return tokens, torch.where(ignored, -1, targets)


def write_fixture(name, tensors, description):
    FIXTURES.mkdir(parents=True, exist_ok=True)
    path = FIXTURES / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.detach().contiguous() for key, value in tensors.items()}, path)
    text = json.dumps(description, indent=1)
    (FIXTURES / f"{name}.json").write_text(text + "\n")
    print(f"{name}: {path.stat().st_size / 1024:.0f} KiB, {len(tensors)} tensors")
