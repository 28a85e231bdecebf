"""A whole run from plain PyTorch: text in, the figures of metrics.jsonl out.

A MoE decoder (plain_model.py) on a piece of text, byte by byte, several epochs without shuffling,
with accumulation, weight decay, clipping, schedule and evaluations: what the program must show when
it is given the same configuration, text and initial weights. Formats: README.md.
Run: python tests/reference/generate_run.py   (needs torch, safetensors)
"""
import math
import pathlib

import torch

import common
import generate_moe
import plain_model

TEXT_BYTES, END_OF_TEXT, STEPS = 700, 256, 12
CONFIG = {
    "model": {"layers": 2, "width": 16, "heads": 2, "kv_heads": 2, "feed_forward": 24,
              "context": 16, "vocabulary": 257, "positions": "learned", "norm": "layer_norm",
              "norm_epsilon": 1e-5, "activation": "gelu", "bias": True, "tie_embeddings": True,
              "dropout": 0.0},
    "moe": generate_moe.moe_config(4, 1, generate_moe.adaptive("all", "raw", 2, 0.05), "paper",
                                   0.01, 0.001),
    "data": {"validation_share": 0.2, "shuffle": False},
    # No value is the program's default, so that each must have been passed on.
    "train": {**common.training_config(5, STEPS, 2), "evaluate_every": "5s",
              "optimizer": {"name": "adamw", "learning_rate": 4e-3, "beta1": 0.85, "beta2": 0.97,
                            "epsilon": 1e-6, "weight_decay": 0.3, "clip_norm": 0.8},
              "schedule": {"warmup": "3s", "decay": "cosine", "final_ratio": 0.2}},
}


def samples_of(text):
    """Windows of `context` tokens, each with what follows as target; the last one is shorter."""
    tokens = [*text, END_OF_TEXT]
    inputs, targets, context = tokens[:-1], tokens[1:], CONFIG["model"]["context"]
    return [(inputs[at:at + context], targets[at:at + context])
            for at in range(0, len(inputs), context)]


def padded(samples):
    """tokens, targets, inside [B, S]."""
    length = max(len(tokens) for tokens, _ in samples)
    fill = [(t + [0] * (length - len(t)), y + [-1] * (length - len(y))) for t, y in samples]
    inside = torch.tensor([[i < len(t) for i in range(length)] for t, _ in samples])
    return (torch.tensor([t for t, _ in fill]), torch.tensor([y for _, y in fill]), inside)


def routing_figures(routed):
    """Figures of one MoE layer over a batch without padding."""
    moe, counts = CONFIG["moe"], [len(row) for row in routed["rows"]]
    p = routed["probabilities"].detach()
    load = [sum(row.count(e) for row in routed["rows"]) for e in range(moe["experts"])]
    return {"single_expert_share": counts.count(1) / len(counts), "assignments": sum(counts),
            "load": load, "entropy": -(p * p.log()).sum(dim=1).mean().item(),
            "balance_loss": moe["balance"]["coefficient"] * routed["balance"].item(),
            "z_loss": moe["balance"]["z_coefficient"] * routed["z"].item()}


def evaluate(weights, samples):
    """Mean cross-entropy over all targets of the held-out samples."""
    tokens, targets, inside = padded(samples)
    with torch.no_grad():
        logits, routed = plain_model.decoder(tokens, weights, CONFIG, inside)
        loss = common.cross_entropy_sum(logits, targets).item() / int((targets >= 0).sum())
    counts = [len(row) for r in routed for row in r["rows"] if row]
    return {"validation_loss": loss, "validation_perplexity": math.exp(loss),
            "validation_targets": int((targets >= 0).sum()),
            "validation_single_expert_share": counts.count(1) / len(counts)
            }, min(r["margin"] for r in routed)


def run(weights, samples):
    """The lines of metrics.jsonl, and how near any routing decision came to flipping."""
    held_out = max(1, int(CONFIG["data"]["validation_share"] * len(samples)))
    train, validation = samples[:-held_out], samples[-held_out:]
    batch = CONFIG["train"]["batch"]
    per_epoch = -(-len(train) // batch)
    lines, evaluations, margins, consumed = [], [], [], 0

    def loss_of_step(step):
        nonlocal consumed
        if step > 0 and step % 5 == 0:  # before this step, so after the one before
            evaluation, margin = evaluate(weights, validation)
            evaluations.append({"step": step, **evaluation})
            margins.append(margin)
        at = step % per_epoch * batch
        tokens, targets, inside = padded(train[at:at + batch])
        total, _, entropy, routed = generate_moe.decoder_loss(CONFIG, weights, tokens, targets,
                                                              inside)
        margins.extend(r["margin"] for r in routed)
        consumed += targets.numel()
        layers = [routing_figures(r) for r in routed]
        lines.append({
            "step": step + 1, "epoch": step // per_epoch, "consumed_tokens": consumed,
            "loss": entropy.item(), "auxiliary_loss": (total - entropy).item(),
            "targets": targets.numel(), "moe": layers,
            "single_expert_share": sum(x["single_expert_share"] for x in layers) / len(layers),
            "experts_per_token":
                sum(x["assignments"] for x in layers) / len(layers) / targets.numel()})
        yield total

    _, norms, rates = common.train(list(weights.items()), common.is_decayed, loss_of_step,
                                   CONFIG["train"])
    for line, norm, rate in zip(lines, norms, rates):
        line |= {"grad_norm": norm, "learning_rate": rate}
    evaluation, margin = evaluate(weights, validation)
    evaluations.append({"step": STEPS, **evaluation})
    assert per_epoch < STEPS and len(train) % batch != 0  # several epochs, with a smaller batch
    return lines, evaluations, min([margin, *margins])


def main():
    common.make_deterministic()
    repository = pathlib.Path(__file__).resolve().parents[2]
    text = (repository / "data/samples/shakespeare.txt").read_bytes()[:TEXT_BYTES]
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        weights = plain_model.random_weights(CONFIG, generator, scale=0.2)
        lines, evaluations, margin = run(generate_moe.copies(weights, torch.float64),
                                         samples_of(text))
        if margin > 2e-5:  # above what f32 moves a probability by
            break
    print(f"seed {seed}, margin {margin:.1e}, loss {lines[0]['loss']:.3f} -> "
          f"{lines[-1]['loss']:.3f}, validation {evaluations[-1]['validation_loss']:.3f}, single "
          f"{lines[0]['single_expert_share']:.2f} -> {lines[-1]['single_expert_share']:.2f}")
    common.write_fixture("run/moe", weights, {
        "config": CONFIG, "text": text.decode(), "steps": lines, "evaluations": evaluations,
        "smallest_margin": margin})


if __name__ == "__main__":
    main()
