"""GPT-2, dense or Mixture-of-Experts, in PyTorch on a GPU: what speed.py measures beside adagate.

Autocast to bf16 over fp32 weights, scaled_dot_product_attention, fused AdamW, one torch.compile
over the whole model; experts by grouped products over sorted rows, without reading a size back.
  torch_gpt2.py prepare --config CONFIG --folder DIR    initial weights and tokens for both programs
  torch_gpt2.py train --config CONFIG --folder DIR --result FILE
  torch_gpt2.py compile                                 fills the compiler's cache for both models
CONFIG is a run's effective configuration, as `adagate config` prints it.
"""

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts/bench"))
import pytorch_cases  # noqa: E402
import pytorch_decoder  # noqa: E402
import pytorch_model  # noqa: E402
from cases import finite_or_none  # noqa: E402


def grouped_product(rows, weights, ends):
    """rows[first:end] @ weights[e] for each expert; rows past the last end are not computed."""
    product = getattr(F, "grouped_mm", None) or torch._grouped_mm
    return product(rows, weights, offs=ends)


class GroupedMoe(pytorch_model.Moe):
    """Sizes depend on shapes alone, so that the host never waits and the compiler sees it whole. A
    place that the adaptive gate leaves free goes behind the last expert's rows."""

    def __init__(self, width, hidden, moe, form):
        super().__init__(width, hidden, moe, "grouped")

    def mix(self, h, probabilities):
        gate, experts = self.settings["gate"], self.settings["experts"]
        adaptive = gate["policy"] == "adaptive"
        k = 1 if gate["policy"] == "top1" else 2
        top, chosen = probabilities.topk(k, dim=-1)  # [T, k]
        taken = torch.ones_like(chosen, dtype=torch.bool)
        if adaptive:
            taken[:, 1] = (top[:, 0] - top[:, 1]) <= gate["threshold"]
        self.two_expert_tokens = taken[:, k - 1].float().mean() if k == 2 else h.new_zeros(())
        self.balance = self.balance_of(probabilities, chosen, taken, gate["policy"])
        owner = torch.where(taken, chosen, experts).view(-1)
        order = owner.argsort(stable=True)
        kinds = torch.arange(experts, device=h.device)
        ends = (owner.unsqueeze(1) <= kinds).sum(dim=0).to(torch.int32)  # [experts]
        owner = owner.index_select(0, order).clamp(max=experts - 1)
        real = (torch.arange(order.numel(), device=h.device) < ends[-1]).unsqueeze(1)

        # Of rows past the last end, products leave what was in memory, gradients as well as values.
        def masked(rows):
            return torch.where(real, rows, 0) if adaptive else rows

        rows = self.run(masked(h.index_select(0, order // k)), ends, owner, masked)
        inverse = torch.empty_like(order).scatter_(
            0, order, torch.arange(order.numel(), device=h.device))
        unsorted = rows.index_select(0, inverse).view(-1, k, rows.shape[-1])
        weights = torch.where(taken, top, 0).to(rows.dtype)
        return (unsorted * weights.unsqueeze(-1)).sum(dim=1)

    def run(self, rows, ends, owner, masked):
        kind = rows.dtype
        if torch.is_autocast_enabled(rows.device.type):
            kind = torch.get_autocast_dtype(rows.device.type)
        inner = grouped_product(rows.to(kind), self.up.to(kind), ends)
        inner = F.gelu(masked(inner + self.up_bias.to(kind)[owner]), approximate="tanh")
        outer = grouped_product(inner, self.down.to(kind), ends)
        return masked(outer + self.down_bias.to(kind)[owner])

    def balance_of(self, probabilities, chosen, taken, policy):
        experts = probabilities.shape[-1]
        counted = taken
        if policy == "adaptive" and self.settings["balance"]["loss"] == "paper":
            counted = torch.zeros_like(taken)
            counted[:, 0] = ~taken[:, 1]  # the single-expert tokens
        kinds = torch.arange(experts, device=chosen.device)
        hits = (chosen.unsqueeze(-1) == kinds) & counted.unsqueeze(-1)  # [T, k, experts]
        counts = hits.sum(dim=(0, 1))
        share = counts / counts.sum().clamp(min=1)
        return experts * (share * probabilities.mean(dim=0)).sum()


class DeviceNormals:
    """In place of numpy's generator: draws hundreds of millions of numbers in a moment."""

    def __init__(self, device, seed):
        self.generator = torch.Generator(device)
        self.generator.manual_seed(seed)

    def standard_normal(self, shape, dtype):
        assert dtype == numpy.float32
        return torch.randn(shape, generator=self.generator,
                           device=self.generator.device).cpu().numpy()


def with_numbers(value):
    """1e-08 is a number in YAML 1.2, and a text to PyYAML."""
    if isinstance(value, dict):
        return {key: with_numbers(inner) for key, inner in value.items()}
    with contextlib.suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


def read_config(path):
    import yaml
    config = with_numbers(yaml.safe_load(Path(path).read_text()))
    model = config["model"]
    model["feed_forward"] = model["feed_forward"] or 4 * model["width"]
    return config


def make_model(config, device, head="plain"):
    with torch.device(device):
        return pytorch_model.Decoder(config, {"head": head, "experts": "grouped"}, GroupedMoe)


def autocast(config, device):
    if config["precision"] != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16)


def prepare(args, config):
    """Files under --folder: tokens for both programs, weights unless they are there, threshold."""
    from safetensors.numpy import save_file
    args.folder.mkdir(parents=True, exist_ok=True)
    vocabulary = config["model"]["vocabulary"]
    count = args.steps * config["train"]["batch"] * config["model"]["context"] + 1
    tokens = pytorch_cases.zipf_tokens(min(vocabulary, 50257), count, numpy.random.default_rng(7))
    tokens.tofile(args.folder / "tokens.u32")
    pytorch_cases.write_token_file(args.folder / "train.tokens", tokens, vocabulary,
                                   args.tokenizer_hash)
    weights = args.folder / "init.safetensors"
    if not weights.exists():
        save_file(pytorch_cases.initial_weights(config, DeviceNormals(args.device, 7)), weights)
    moe = config["moe"]
    is_adaptive = moe["experts"] > 0 and moe["gate"]["policy"] == "adaptive"
    threshold = calibrate(args, config) if is_adaptive else None
    args.result.write_text(json.dumps({"threshold": threshold}))


@torch.no_grad()
def calibrate(args, config):
    """The threshold at which a fifth of the tokens takes two experts, at the start."""
    model = make_model(config, args.device)
    pytorch_model.load_initial_weights(model, args.folder / "init.safetensors")
    first = next(pytorch_decoder.read_batches(args.folder, config, 1, 0, 1))
    tokens, targets = (part[:4].to(args.device) for part in first)
    gate, gaps = config["moe"]["gate"], []

    def note_gaps(part, h, probabilities):
        top = probabilities.topk(2, dim=-1).values
        gaps.append(top[:, 0] - top[:, 1])
        return type(part).mix(part, h, probabilities)

    for part in model.moe_parts():
        part.mix = note_gaps.__get__(part)
    for _ in range(4):  # the gaps depend on the threshold through earlier layers
        gaps.clear()
        with autocast(config, args.device):
            model(tokens, targets)
        gate["threshold"] = round(
            torch.cat(gaps).float().cpu().quantile(pytorch_cases.TWO_EXPERT_SHARE).item(), 6)
    return gate["threshold"]


def synchronize(device):
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def train(args, config):
    model = make_model(config, args.device)
    pytorch_model.load_initial_weights(model, args.folder / "init.safetensors")
    settings = config["train"]["optimizer"]
    optimizer = pytorch_model.make_optimizer(model, settings, "fused")
    parameters = list(model.parameters())
    coefficient = config["moe"]["balance"]["coefficient"] if config["moe"]["experts"] else 0.0
    runner = torch.compile(model, dynamic=False) if args.compile == "model" else model
    batches = [tuple(part.to(args.device) for part in batch) for batch in
               pytorch_decoder.read_batches(args.folder, config, args.steps, 0, 1)]
    losses, shares, start = [], [], time.perf_counter()
    for step, (tokens, targets) in enumerate(batches):
        if step == args.warmup:
            synchronize(args.device)
            start = time.perf_counter()
        with autocast(config, args.device):
            loss, balance = runner(tokens, targets)
        (loss + coefficient * balance).backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings["clip_norm"], foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        shares += [part.two_expert_tokens.detach() for part in model.moe_parts()]
    synchronize(args.device)
    seconds = time.perf_counter() - start
    timed = args.steps - args.warmup
    tokens = timed * config["train"]["batch"] * config["model"]["context"]
    return {"losses": [finite_or_none(loss.item()) for loss in losses],
            "seconds_per_step": seconds / timed,
            "tokens_per_second": tokens / seconds, "timed_steps": timed,
            "two_expert_share": torch.stack(shares).float().mean().item() if shares else 0.0,
            "peak_memory_bytes": torch.cuda.max_memory_allocated()
            if torch.device(args.device).type == "cuda" else None,
            "torch": torch.__version__, "compile": args.compile}


def compile_models(args):
    """A step of the dense and of one MoE model at the sizes that are measured, with any weights."""
    for experts, policy in ((0, "top2"), (8, "top2")):
        config = {
            "precision": "bf16",
            "model": {"layers": 12, "width": 768, "heads": 12, "feed_forward": 3072,
                      "context": 1024, "vocabulary": 50304},
            "moe": {"experts": experts, "every": 2, "gate": {"policy": policy},
                    "balance": {"loss": "switch"}}}
        model = make_model(config, args.device)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.02)
        tokens = torch.randint(50257, (64, 1024), device=args.device)
        with autocast(config, args.device):
            loss, balance = torch.compile(model, dynamic=False)(tokens, tokens)
        (loss + 0.01 * balance).backward()
        synchronize(args.device)
        del model, loss, balance
        if torch.device(args.device).type == "cuda":
            torch.cuda.empty_cache()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["prepare", "train", "compile"])
    parser.add_argument("--config", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--result", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=5, help="steps before the timed ones")
    parser.add_argument("--compile", choices=["model", "none"], default="model")
    parser.add_argument("--tokenizer-hash", type=int, default=0)
    args = parser.parse_args()
    if args.command == "compile":
        return compile_models(args)
    config = read_config(args.config)
    if args.command == "prepare":
        return prepare(args, config)
    args.result.write_text(json.dumps(train(args, config)))


if __name__ == "__main__":
    main()
