"""A Mixture-of-Experts layer and decoder in plain PyTorch, written from the equations.

Slow on purpose: every expert is applied to every token and the plan's weights select, so that
nothing here shares a mechanism (sorting, segments, scatter) with what it checks. Parameters live
in a dict under adagate's global names; linear weights are [in, out], so y = x W.
"""

import torch
import torch.nn.functional as F


def activate(hidden, activation):
    """hidden [..., F] for gelu (GPT-2's tanh form); [..., 2F] for swiglu, the gate half first."""
    if activation == "gelu":
        return F.gelu(hidden, approximate="tanh")
    if activation == "swiglu":
        gate, up = hidden.chunk(2, dim=-1)
        return F.silu(gate) * up
    raise ValueError(activation)


def rank_experts(probabilities):
    """Experts of each token [T, E] by descending probability, ties to the lower index."""
    return torch.sort(probabilities, dim=-1, descending=True, stable=True).indices


def gaps_to_first(top, gate):
    """R_1 - R_r of each row's sorted probabilities; "pair": with R_1 and R_r scaled to sum to 1."""
    gaps = top[:, :1] - top
    return gaps / (top[:, :1] + top) if gate["normalize"] == "pair" else gaps


def count_experts(probabilities, order, gate):
    """Number of experts of each token [T], by the policy; decisions carry no gradient."""
    tokens = probabilities.shape[0]
    policy = gate["policy"]
    if policy in ("top1", "top2", "topk"):
        k = {"top1": 1, "top2": 2}.get(policy) or gate["k"]
        return torch.full((tokens,), k, dtype=torch.long)
    if policy != "adaptive":
        raise ValueError(policy)
    # Gap rule: expert r joins while R_1 - R_r <= T, at most k_max of them.
    top = probabilities.detach().gather(1, order[:, :gate["k_max"]])
    joins = gaps_to_first(top, gate) <= gate["threshold"]
    joins[:, 0] = True
    return joins.long().cumprod(dim=1).sum(dim=1)


def margin_of_decisions(probabilities, gate, valid):
    """Smallest distance of any decision from flipping; exact ties are excluded (they are
    defined)."""
    top = probabilities.detach().sort(dim=-1, descending=True).values[valid]
    if top.numel() == 0:
        return float("inf")
    most = {"top1": 1, "top2": 2, "topk": gate.get("k"), "adaptive": gate.get("k_max")}
    adjacent = (top[:, :-1] - top[:, 1:])[:, :most[gate["policy"]]]
    distances = [adjacent[adjacent > 0]]
    if gate["policy"] == "adaptive":
        gaps = gaps_to_first(top[:, :gate["k_max"]], gate)[:, 1:]
        away = (gaps - gate["threshold"]).abs()
        distances.append(away[away > 0])
    return min(float(d.min()) for d in distances if d.numel())


def route(logits, gate, valid):
    """Returns (probabilities [T, E], weights [T, E] with zeros off the plan, plan rows)."""
    probabilities = torch.softmax(logits, dim=-1)
    order = rank_experts(probabilities.detach())
    counts = torch.where(valid, count_experts(probabilities, order, gate), 0)
    rows = [order[t, :counts[t]].tolist() for t in range(logits.shape[0])]
    selected = torch.zeros_like(probabilities)
    for token, experts in enumerate(rows):
        selected[token, experts] = 1.0
    weights = probabilities * selected
    if gate["combine"] == "renormalized":
        total = weights.sum(dim=1, keepdim=True)
        weights = weights / torch.where(total > 0, total, torch.ones_like(total))
    return probabilities, weights, rows


def balance_loss(kind, probabilities, rows, valid):
    """E * sum_e f_e p_e, f constant in backward, p the mean probability over all valid tokens.

    "paper": f = share of each expert among the tokens of exactly one expert (zero loss if none);
    "switch": f = share of each expert among all assignments."""
    experts = probabilities.shape[1]
    counted = [r for r in rows if len(r) == 1] if kind == "paper" else rows
    counts = torch.zeros(experts, dtype=probabilities.dtype)
    for row in counted:
        for expert in row:
            counts[expert] += 1
    if counts.sum() == 0:
        return probabilities.sum() * 0.0
    mean = probabilities[valid].sum(dim=0) / valid.sum()
    return experts * (counts / counts.sum() * mean).sum()


def z_loss(logits, valid):
    """Mean over the valid tokens of logsumexp(logits)^2."""
    if not valid.any():
        return logits.sum() * 0.0
    return torch.logsumexp(logits[valid], dim=-1).square().mean()


def moe_layer(x, weights, prefix, moe, activation, valid):
    """x [T, D] -> y [T, D] plus everything routed: a dict of probabilities, rows, losses."""
    gate = moe["gate"]
    logits = x @ weights[prefix + "gate.weight"]  # [T, E]
    probabilities, plan_weights, rows = route(logits, gate, valid)
    up, down = weights[prefix + "experts.up.weight"], weights[prefix + "experts.down.weight"]
    up_bias = weights.get(prefix + "experts.up.bias")
    down_bias = weights.get(prefix + "experts.down.bias")
    y = torch.zeros_like(x)
    for expert in range(up.shape[0]):
        hidden = x @ up[expert]
        if up_bias is not None:
            hidden = hidden + up_bias[expert]
        output = activate(hidden, activation) @ down[expert]
        if down_bias is not None:
            output = output + down_bias[expert]
        y = y + plan_weights[:, expert:expert + 1] * output
    routed = {
        "logits": logits,
        "probabilities": probabilities,
        "weights": plan_weights,
        "rows": rows,
        "balance": balance_loss(moe["balance"]["loss"], probabilities, rows, valid),
        "z": z_loss(logits, valid),
        "margin": margin_of_decisions(probabilities, gate, valid),
    }
    return y, routed


def is_moe_layer(block, moe):
    """The last block of each `every` holds experts."""
    return moe["experts"] > 0 and (block + 1) % moe["every"] == 0


def normalise(x, weights, prefix, model):
    gamma = weights[prefix + "gamma"]
    if model["norm"] == "rms_norm":
        scale = torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + model["norm_epsilon"])
        return x * scale * gamma
    return F.layer_norm(x, (x.shape[-1],), gamma, weights[prefix + "beta"],
                        model["norm_epsilon"])


def rotate(x, base):
    """Rotary positions, half-split convention: pair (i, i + Dh/2) turns by pos * base^(-2i/Dh).
    The angle is an f32 number whatever the type of x, as in Transformers."""
    length, size = x.shape[-2], x.shape[-1]
    frequency = 1.0 / base ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
    angle = torch.arange(length, dtype=torch.float32)[:, None] * frequency[None, :]
    cosine, sine = angle.to(x.dtype).cos(), angle.to(x.dtype).sin()
    first, second = x[..., :size // 2], x[..., size // 2:]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def attention(x, weights, prefix, model):
    """x [B, S, D], causal; query head h reads key/value head h // (H / KV)."""
    batch, length, width = x.shape
    heads, kv_heads = model["heads"], model["kv_heads"]
    size = width // heads
    qkv = x @ weights[prefix + "qkv.weight"]
    if model["bias"]:
        qkv = qkv + weights[prefix + "qkv.bias"]
    q, k, v = qkv.split([heads * size, kv_heads * size, kv_heads * size], dim=-1)
    q = q.view(batch, length, heads, size).transpose(1, 2)
    k = k.view(batch, length, kv_heads, size).transpose(1, 2)
    v = v.view(batch, length, kv_heads, size).transpose(1, 2)
    if model["positions"] == "rotary":
        q, k = rotate(q, model["rotary_base"]), rotate(k, model["rotary_base"])
    k = k.repeat_interleave(heads // kv_heads, dim=1)
    v = v.repeat_interleave(heads // kv_heads, dim=1)
    scores = q @ k.transpose(-1, -2) * size ** -0.5
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    mixed = torch.softmax(scores.masked_fill(future, float("-inf")), dim=-1) @ v
    y = mixed.transpose(1, 2).reshape(batch, length, width) @ weights[prefix + "output.weight"]
    return y + weights[prefix + "output.bias"] if model["bias"] else y


def feed_forward(x, weights, prefix, model):
    hidden = x @ weights[prefix + "up.weight"]
    if model["bias"]:
        hidden = hidden + weights[prefix + "up.bias"]
    y = activate(hidden, model["activation"]) @ weights[prefix + "down.weight"]
    return y + weights[prefix + "down.bias"] if model["bias"] else y


def decoder(tokens, weights, config, valid=None):
    """tokens [B, S] -> (logits [B, S, V], routed dict of each MoE layer). Pre-norm residual blocks.
    Tokens that are not valid [B, S] take no expert and count nowhere."""
    model, moe = config["model"], config["moe"]
    batch, length = tokens.shape
    if valid is None:
        valid = torch.ones(batch, length, dtype=torch.bool)
    x = weights["embedding.tokens"][tokens.long()]
    if model["positions"] == "learned":
        x = x + weights["embedding.positions"][:length]
    routed = []
    for block in range(model["layers"]):
        prefix = f"blocks.{block}."
        x = x + attention(normalise(x, weights, prefix + "attention_norm.", model), weights,
                          prefix + "attention.", model)
        h = normalise(x, weights, prefix + "feed_forward_norm.", model)
        if is_moe_layer(block, moe):
            y, r = moe_layer(h.reshape(batch * length, -1), weights, prefix + "moe.",
                             moe, model["activation"], valid.reshape(-1))
            routed.append(r)
            x = x + y.view_as(x)
        else:
            x = x + feed_forward(h, weights, prefix + "feed_forward.", model)
    x = normalise(x, weights, "final_norm.", model)
    head = weights["embedding.tokens"] if model["tie_embeddings"] else weights["head.weight"]
    return x @ head.T, routed


def parameter_shapes(config):
    """Global names and shapes of every parameter, in the order of the forward pass."""
    model, moe = config["model"], config["moe"]
    width, hidden = model["width"], model["feed_forward"]
    size = width // model["heads"]
    qkv = (model["heads"] + 2 * model["kv_heads"]) * size
    up = 2 * hidden if model["activation"] == "swiglu" else hidden
    shapes = {"embedding.tokens": (model["vocabulary"], width)}
    if model["positions"] == "learned":
        shapes["embedding.positions"] = (model["context"], width)

    def add_norm(prefix):
        shapes[prefix + "gamma"] = (width,)
        if model["norm"] == "layer_norm":
            shapes[prefix + "beta"] = (width,)

    def add_linear(prefix, inputs, outputs, experts=()):
        shapes[prefix + "weight"] = (*experts, inputs, outputs)
        if model["bias"]:
            shapes[prefix + "bias"] = (*experts, outputs)

    for block in range(model["layers"]):
        prefix = f"blocks.{block}."
        add_norm(prefix + "attention_norm.")
        add_linear(prefix + "attention.qkv.", width, qkv)
        add_linear(prefix + "attention.output.", width, width)
        add_norm(prefix + "feed_forward_norm.")
        if is_moe_layer(block, moe):
            experts = (moe["experts"],)
            shapes[prefix + "moe.gate.weight"] = (width, experts[0])
            add_linear(prefix + "moe.experts.up.", width, up, experts)
            add_linear(prefix + "moe.experts.down.", hidden, width, experts)
        else:
            add_linear(prefix + "feed_forward.up.", width, up)
            add_linear(prefix + "feed_forward.down.", hidden, width)
    add_norm("final_norm.")
    if not model["tie_embeddings"]:
        shapes["head.weight"] = (model["vocabulary"], width)
    return shapes


def random_weights(config, generator, scale):
    """f32 weights far from the usual initial ones, so that logits and biases all matter."""
    weights = {}
    for name, shape in parameter_shapes(config).items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("gamma"):
            weights[name] = 1.0 + 0.2 * noise
        elif name.endswith(("beta", "bias")):
            weights[name] = 0.1 * noise
        else:
            weights[name] = scale * noise
    return weights
