"""MoE fixtures: the layer under every policy, and whole MoE decoders, from plain_model.py.

Inputs and weights are f32; outputs are computed from them in f64 and in f32. Formats: README.md.
Run: python tests/reference/generate_moe.py   (needs torch, safetensors)
"""

import torch

import common
import plain_model

TOKENS, WIDTH, EXPERTS, HIDDEN = 37, 8, 6, 12
BALANCE_COEFFICIENT, Z_COEFFICIENT = 0.7, 0.05  # large, so that their gradients show
SMALLEST_MARGIN = 1e-4  # no routing decision may be nearer to flipping than this


def adaptive(normalize, combine, k_max, threshold=0.1):
    return {"policy": "adaptive", "threshold": threshold, "normalize": normalize,
            "combine": combine, "k_max": k_max}


def moe_config(experts, every, gate, balance, coefficient, z_coefficient):
    return {"experts": experts, "every": every, "gate": gate,
            "balance": {"loss": balance, "coefficient": coefficient,
                        "z_coefficient": z_coefficient}}


def layer_cases():
    """Every policy x normalisation x combine form; activation, biases, balance loss and padding
    take turns so that each value meets each policy family."""
    gates = [
        ("top1_raw", {"policy": "top1", "combine": "raw"}),
        ("top1_renormalized", {"policy": "top1", "combine": "renormalized"}),
        ("top2_raw", {"policy": "top2", "combine": "raw"}),
        ("top2_renormalized", {"policy": "top2", "combine": "renormalized"}),
        ("topk3_raw", {"policy": "topk", "k": 3, "combine": "raw"}),
        ("topk3_renormalized", {"policy": "topk", "k": 3, "combine": "renormalized"}),
    ]
    for k_max in (2, 3):
        for normalize in ("all", "pair"):
            for combine in ("raw", "renormalized"):
                threshold = {"all": 0.1, "pair": 0.3}[normalize]
                gates.append((f"adaptive_{normalize}_{combine}_k{k_max}",
                              adaptive(normalize, combine, k_max, threshold)))
    cases = []
    for index, (name, gate) in enumerate(gates):
        cases.append({
            "name": name, "gate": gate,
            "activation": ("gelu", "swiglu")[index % 2],
            "bias": index % 4 in (0, 1),
            "balance": ("paper", "switch")[index // 2 % 2],
            "padding": index % 3 == 1,
        })

    def special(name, gate, **changes):
        base = {"name": name, "gate": gate, "activation": "gelu", "bias": True,
                "balance": "paper", "padding": False}
        cases.append({**base, **changes})

    # Adaptive with the paper's loss and padding, both activations.
    special("adaptive_paper_padded_gelu", adaptive("all", "raw", 2), padding=True)
    special("adaptive_paper_padded_swiglu", adaptive("all", "raw", 2), padding=True,
            activation="swiglu", bias=False)
    special("adaptive_switch_padded", adaptive("all", "renormalized", 2), padding=True,
            balance="switch")
    # The other balance loss with each normalisation and combine form.
    special("adaptive_all_renormalized_paper", adaptive("all", "renormalized", 2))
    special("adaptive_pair_raw_switch", adaptive("pair", "raw", 2, 0.3), balance="switch",
            activation="swiglu")
    special("adaptive_pair_renormalized_switch", adaptive("pair", "renormalized", 2, 0.3),
            balance="switch", padding=True)
    # T at its ends: always one expert, always two (the paper's loss is then zero).
    special("adaptive_never", adaptive("all", "raw", 2, threshold=-1.0))
    special("adaptive_always", adaptive("all", "raw", 2, threshold=1.0))
    # Equal probabilities: the lower expert comes first, and with T = 0 a tie takes two (<=, not <).
    special("adaptive_ties_at_zero", adaptive("all", "raw", 2, threshold=0.0), inputs="ties")
    special("top2_ties", {"policy": "top2", "combine": "raw"}, inputs="ties", balance="switch")
    # All tokens on one expert; experts that get nothing; every token padded.
    special("top1_one_expert", {"policy": "top1", "combine": "raw"}, inputs="one_expert")
    special("adaptive_all_padded", adaptive("all", "raw", 2), inputs="all_padded")
    special("adaptive_one_token", adaptive("all", "raw", 2), inputs="one_token",
            activation="swiglu")
    return cases


def layer_inputs(case, generator):
    """x, gate.weight and the padding mask; multiples of 1/16 where ties must be exact."""
    kind = case.get("inputs", "random")
    tokens = 1 if kind == "one_token" else TOKENS
    x = torch.randn(tokens, WIDTH, generator=generator)
    gate = 0.35 * torch.randn(WIDTH, EXPERTS, generator=generator)
    if kind == "ties":
        # Dyadic numbers: every partial sum is exact in any order, so equal columns tie exactly.
        x, gate = torch.round(x * 8) / 8, torch.round(gate * 16) / 16
        gate[:, 4] = gate[:, 1]
        gate[:, 5] = gate[:, 2]
    if kind == "one_expert":
        x[:, 0] = x[:, 0].abs() + 1.0
        gate[0, 3] += 8.0
    valid = torch.ones(tokens, dtype=torch.bool)
    if case["padding"]:
        valid[torch.arange(tokens) % 5 == 3] = False
        valid[-6:] = False
    if kind == "all_padded":
        valid[:] = False
    return x, gate, valid


def layer_weights(case, gate, generator):
    up = 2 * HIDDEN if case["activation"] == "swiglu" else HIDDEN
    weights = {"gate.weight": gate,
               "experts.up.weight": 0.4 * torch.randn(EXPERTS, WIDTH, up, generator=generator),
               "experts.down.weight": 0.4 * torch.randn(EXPERTS, HIDDEN, WIDTH,
                                                        generator=generator)}
    if case["bias"]:
        weights["experts.up.bias"] = 0.3 * torch.randn(EXPERTS, up, generator=generator)
        weights["experts.down.bias"] = 0.3 * torch.randn(EXPERTS, WIDTH, generator=generator)
    return weights


def run_layer(case, x, weights, valid, cotangent, dtype):
    """y, routing and gradients of sum(y * cotangent) + c_b * balance + c_z * z in `dtype`."""
    x = x.to(dtype).requires_grad_()
    weights = {n: w.to(dtype).requires_grad_() for n, w in weights.items()}
    moe = {"gate": case["gate"], "balance": {"loss": case["balance"]}}
    y, routed = plain_model.moe_layer(x, weights, "", moe, case["activation"], valid)
    total = ((y * cotangent.to(dtype)).sum() + BALANCE_COEFFICIENT * routed["balance"]
             + Z_COEFFICIENT * routed["z"])
    names = ["x", *weights]
    grads = torch.autograd.grad(total, [x, *weights.values()], allow_unused=True)
    grads = {n: torch.zeros_like(v) if g is None else g
             for n, v, g in zip(names, [x, *weights.values()], grads)}
    return y, routed, total, grads


def plan_tensors(routed):
    """The plan in CSR: row_start [T + 1], expert [n], and the weights [n] in the same order."""
    rows = routed["rows"]
    starts = torch.tensor([0, *torch.tensor([len(r) for r in rows]).cumsum(0).tolist()],
                          dtype=torch.int32)
    experts = torch.tensor([e for r in rows for e in r], dtype=torch.int32)
    weights = [routed["weights"][t, e] for t, r in enumerate(rows) for e in r]
    return starts, experts, torch.stack(weights) if weights else torch.zeros(0)


def write_layer(case):
    """Draws inputs until no decision is near a border, then writes the case."""
    for seed in range(1000):
        generator = torch.Generator().manual_seed(
            sum(ord(c) * 31 ** i for i, c in enumerate(case["name"])) % 2**31 + seed)
        x, gate, valid = layer_inputs(case, generator)
        weights = layer_weights(case, gate, generator)
        cotangent = torch.randn(x.shape, generator=generator)
        y, routed, total, grads = run_layer(case, x, weights, valid, cotangent, torch.float64)
        counts = [len(r) for r in routed["rows"]]
        mixed = case["gate"]["policy"] != "adaptive" or "inputs" in case or \
            case["gate"]["threshold"] in (-1.0, 1.0) or \
            all(counts.count(k) >= 4 for k in range(1, case["gate"]["k_max"] + 1))
        if routed["margin"] > SMALLEST_MARGIN and mixed:
            break
    else:
        raise RuntimeError(f"{case['name']}: no inputs without near ties")
    y32, routed32, total32, grads32 = run_layer(case, x, weights, valid, cotangent, torch.float32)
    assert routed32["rows"] == routed["rows"]
    starts, experts, plan_weights = plan_tensors(routed)
    common.write_fixture(f"moe/{case['name']}", {
        "inputs/x": x, "inputs/valid": valid.to(torch.uint8), "inputs/cotangent": cotangent,
        **{f"weights/{n}": w for n, w in weights.items()},
        "plan/row_start": starts, "plan/expert": experts, "plan/weight": plan_weights,
        "probabilities": routed["probabilities"],
        "f64/y": y, "f32/y": y32,
        **{f"f64/grads/{n}": g for n, g in grads.items()},
        **{f"f32/grads/{n}": g for n, g in grads32.items()},
    }, {
        "config": {
            "model": {"width": WIDTH, "feed_forward": HIDDEN, "activation": case["activation"],
                      "bias": case["bias"]},
            "moe": moe_config(EXPERTS, 1, case["gate"], case["balance"], BALANCE_COEFFICIENT,
                              Z_COEFFICIENT),
        },
        "f64": {"balance": routed["balance"].item(), "z": routed["z"].item(),
                "total": total.item()},
        "f32": {"balance": routed32["balance"].item(), "z": routed32["z"].item(),
                "total": total32.item()},
        "tokens_with_k_experts": [counts.count(k) for k in range(EXPERTS + 1)],
        "smallest_margin": min(routed["margin"], 1.0),
    })


BATCH, LENGTH, STEPS = 3, 20, 10
GPT2_MOE = {
    "model": {"layers": 4, "width": 24, "heads": 3, "kv_heads": 3, "feed_forward": 32,
              "context": 24, "vocabulary": 97, "positions": "learned", "norm": "layer_norm",
              "norm_epsilon": 1e-5, "activation": "gelu", "bias": True, "tie_embeddings": True,
              "dropout": 0.0},
    "moe": moe_config(4, 2, adaptive("all", "raw", 2), "paper", 0.01, 0.0),
    "train": common.training_config(BATCH, STEPS, 1),
}
MODERN_MOE = {
    "model": {"layers": 2, "width": 24, "heads": 3, "kv_heads": 1, "feed_forward": 24,
              "context": 24, "vocabulary": 97, "positions": "rotary", "rotary_base": 10000.0,
              "norm": "rms_norm", "norm_epsilon": 1e-5, "activation": "swiglu", "bias": False,
              "tie_embeddings": False, "dropout": 0.0},
    "moe": moe_config(6, 1, {"policy": "top2", "combine": "renormalized"}, "switch", 0.01, 0.001),
    "train": common.training_config(BATCH, STEPS, 1),
}
LENGTHS = [20, 7, 1]  # of the padded batch


def decoder_loss(config, weights, tokens, targets, inside):
    """Mean cross-entropy over valid targets + coefficient x sum over MoE layers of each loss."""
    logits, routed = plain_model.decoder(tokens, weights, config, inside)
    entropy = common.cross_entropy_sum(logits, targets) / int((targets >= 0).sum())
    balance = sum(r["balance"] for r in routed)
    z = sum(r["z"] for r in routed)
    moe = config["moe"]["balance"]
    total = entropy + moe["coefficient"] * balance + moe["z_coefficient"] * z
    return total, logits, entropy, routed


def copies(weights, dtype):
    return {n: w.to(dtype).clone().requires_grad_() for n, w in weights.items()}


def describe_batch(config, weights, tokens, targets, inside):
    """Tensors and description of one forward and backward in f64."""
    held = copies(weights, torch.float64)
    total, logits, entropy, routed = decoder_loss(config, held, tokens, targets, inside)
    total.backward()
    tensors = {"inputs/tokens": tokens, "inputs/targets": targets,
               "logits": torch.where(inside[:, :, None], logits, 0.0).float(),
               **{f"grads/{n}": w.grad.float() for n, w in held.items()}}
    blocks = range(config["model"]["layers"])
    layers = [b for b in blocks if plain_model.is_moe_layer(b, config["moe"])]
    for layer, r in zip(layers, routed):
        starts, experts, _ = plan_tensors(r)
        tensors[f"plan/{layer}/row_start"], tensors[f"plan/{layer}/expert"] = starts, experts
    return tensors, {
        "loss": entropy.item(), "total": total.item(),
        "balance": [r["balance"].item() for r in routed], "z": [r["z"].item() for r in routed],
        "grad_norms": {n: w.grad.norm().item() for n, w in held.items()},
    }, min(r["margin"] for r in routed)


def train_decoder(config, weights, tokens, targets, dtype):
    held = copies(weights, dtype)
    inside = torch.ones(BATCH, LENGTH, dtype=torch.bool)
    trace = {"entropy": [], "balance": [], "single_expert_share": [], "margin": float("inf")}

    def loss_of_step(step):
        total, _, entropy, routed = decoder_loss(config, held, tokens[step], targets[step], inside)
        counts = [len(row) for r in routed for row in r["rows"]]
        trace["entropy"].append(entropy.item())
        trace["balance"].append(sum(r["balance"].item() for r in routed))
        trace["single_expert_share"].append(counts.count(1) / len(counts))
        trace["margin"] = min([trace["margin"], *[r["margin"] for r in routed]])
        yield total

    _, norms, rates = common.train(list(held.items()), common.is_decayed, loss_of_step,
                                   config["train"])
    return trace, norms, rates, held


def make_decoder(config, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = plain_model.random_weights(config, generator, scale=0.2)
    vocabulary = config["model"]["vocabulary"]
    batches = [common.next_token_batch(generator, BATCH, LENGTH, vocabulary, 0.15)
               for _ in range(STEPS + 2)]
    tokens = torch.stack([b[0] for b in batches])
    targets = torch.stack([b[1] for b in batches])
    return weights, tokens, targets


def write_decoder(name, config, first_seed):
    everything = torch.ones(BATCH, LENGTH, dtype=torch.bool)
    lengths = torch.tensor(LENGTHS)[:, None]
    inside = torch.arange(LENGTH)[None, :] < lengths
    for seed in range(first_seed, first_seed + 1000):
        weights, tokens, targets = make_decoder(config, seed)
        padded_tokens = torch.where(inside, tokens[1], 0)
        padded_targets = torch.where(torch.arange(LENGTH)[None, :] < lengths - 1, tokens[1].roll(
            -1, dims=1), -1)
        tensors, plain, margin = describe_batch(config, weights, tokens[0], targets[0], everything)
        padded_tensors, padded, padded_margin = describe_batch(config, weights, padded_tokens,
                                                               padded_targets, inside)
        if min(margin, padded_margin) < SMALLEST_MARGIN:
            continue
        run = train_decoder(config, weights, tokens[2:], targets[2:], torch.float64)
        if run[0]["margin"] > SMALLEST_MARGIN:
            break
    else:
        raise RuntimeError(f"{name}: no seed without near ties")
    trace, norms, rates, final = run
    trace32 = train_decoder(config, weights, tokens[2:], targets[2:], torch.float32)[0]
    made_with = {"torch": torch.__version__.split("+")[0]}
    common.write_fixture(name, {
        **{f"weights/{n}": w for n, w in weights.items()}, **tensors,
        "train/tokens": tokens[2:, None], "train/targets": targets[2:, None],
    }, {
        "made_with": made_with, "config": config, **plain,
        "train": {"losses": trace["entropy"], "losses_f32": trace32["entropy"],
                  "balance": trace["balance"], "grad_norms": norms, "learning_rates": rates,
                  "single_expert_share": trace["single_expert_share"],
                  "final_norms": {n: w.detach().norm().item() for n, w in final.items()}},
        "smallest_margin": min(margin, trace["margin"]),
    })
    common.write_fixture(name + "_padded", {
        **padded_tensors, "inputs/lengths": torch.tensor(LENGTHS, dtype=torch.int32),
    }, {"config": config, "weights_from": name + ".safetensors", **padded,
        "smallest_margin": padded_margin})
    worst = max(abs(a - b) for a, b in zip(trace["entropy"], trace32["entropy"]))
    print(f"  seed {seed}, loss {trace['entropy'][0]:.4f} -> {trace['entropy'][-1]:.4f}, f32 "
          f"differs by {worst:.1e}, single {trace['single_expert_share'][0]:.2f}, "
          f"margin {trace['margin']:.1e}")


def main():
    common.make_deterministic()
    for case in layer_cases():
        write_layer(case)
    write_decoder("gpt2_moe", GPT2_MOE, first_seed=21)
    write_decoder("modern_moe", MODERN_MOE, first_seed=22)


if __name__ == "__main__":
    main()
