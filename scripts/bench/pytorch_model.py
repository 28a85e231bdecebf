"""A GPT-2 shaped decoder, dense or Mixture-of-Experts, in the fastest form PyTorch offers on the
CPU; scripts/gpu/torch_gpt2.py exchanges the MoE layer for one that suits GPUs.

Parameters carry adagate's global names except that each expert's matrices are parameters of their
own (stacked ones would cost a copy of all gradients per step); `load_initial_weights` splits them.
Options, chosen by measurement: head "plain" or "chunked" (F.linear_cross_entropy), experts "loop"
(one matrix product per expert on the slice of its rows) or "grouped" (F.grouped_mm), compile
"none" or "blocks" (attention and dense feed-forward; the routed part's sizes depend on data).
"""

import math

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn


class Linear(nn.Module):
    """y = x W + b with W [in, out]."""

    def __init__(self, inputs, outputs):
        super().__init__()
        # Held [out, in], the layout F.linear is fastest with; transposed when loaded.
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


class Attention(nn.Module):
    """norm, causal self-attention, residual."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.qkv = Linear(width, 3 * width)
        self.output = Linear(width, width)

    def forward(self, x):
        batch, length, width = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.output(y.transpose(1, 2).reshape(batch, length, width))


class FeedForward(nn.Module):
    """norm, feed-forward, residual."""

    def __init__(self, width, hidden):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.up = Linear(width, hidden)
        self.down = Linear(hidden, width)

    def forward(self, x):
        return x + self.down(F.gelu(self.up(self.norm(x)), approximate="tanh"))


class Moe(nn.Module):
    """norm, routed experts on sorted segments, residual."""

    def __init__(self, width, hidden, moe, form):
        super().__init__()
        self.settings, self.form = moe, form
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.gate = nn.Parameter(torch.empty(width, moe["experts"]))
        if form == "grouped":
            experts = moe["experts"]
            self.up = nn.Parameter(torch.empty(experts, width, hidden))
            self.up_bias = nn.Parameter(torch.empty(experts, hidden))
            self.down = nn.Parameter(torch.empty(experts, hidden, width))
            self.down_bias = nn.Parameter(torch.empty(experts, width))
        else:
            self.up = nn.ModuleList(Linear(width, hidden) for _ in range(moe["experts"]))
            self.down = nn.ModuleList(Linear(hidden, width) for _ in range(moe["experts"]))
        self.balance = None  # loss of the latest forward
        self.two_expert_tokens = 0.0  # share in the latest forward

    def forward(self, x):
        shape = x.shape
        h = self.norm(x).reshape(-1, shape[-1])
        with torch.autocast(x.device.type, enabled=False):
            probabilities = torch.softmax(h.float() @ self.gate, dim=-1)
        y = self.mix(h, probabilities)
        return x + y.view(shape)

    def mix(self, h, probabilities):
        gate = self.settings["gate"]
        experts = self.settings["experts"]
        k = 1 if gate["policy"] == "top1" else 2
        top, chosen = probabilities.topk(k, dim=-1)  # [T, k]
        slots = None
        if gate["policy"] == "adaptive":
            joins = torch.ones_like(chosen, dtype=torch.bool)
            joins[:, 1] = (top[:, 0] - top[:, 1]) <= gate["threshold"]
            slots = joins.view(-1).nonzero().view(-1)  # taken of the T * k places
            self.two_expert_tokens = joins[:, 1].float().mean().item()
        else:
            self.two_expert_tokens = k - 1.0
        taken = chosen.view(-1) if slots is None else chosen.view(-1)[slots]
        order = taken.argsort(stable=True)
        counts = torch.bincount(taken, minlength=experts)
        self.balance = self.balance_loss(probabilities, chosen, counts, slots)
        place = order if slots is None else slots[order]
        token = place // k
        rows = self.run_experts(h.index_select(0, token), counts)
        if slots is None:  # every place is filled: combine by gathering back
            inverse = torch.empty_like(order)
            inverse[order] = torch.arange(order.numel())
            unsorted = rows.index_select(0, inverse).view(-1, k, rows.shape[-1])
            return (unsorted * top.to(rows.dtype).unsqueeze(-1)).sum(dim=1)
        weighted = rows * top.view(-1)[place].to(rows.dtype).unsqueeze(-1)
        return torch.zeros_like(h, dtype=rows.dtype).index_add_(0, token, weighted)

    def run_experts(self, rows, counts):
        if self.form == "grouped":
            ends = counts.cumsum(0).to(torch.int32)
            owner = torch.repeat_interleave(torch.arange(counts.numel()), counts)
            kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") \
                else rows.dtype
            rows = F.grouped_mm(rows.to(kind), self.up.to(kind), offs=ends)
            rows = F.gelu(rows + self.up_bias.to(kind)[owner], approximate="tanh")
            rows = F.grouped_mm(rows, self.down.to(kind), offs=ends)
            return rows + self.down_bias.to(kind)[owner]
        parts = [down(F.gelu(up(part), approximate="tanh")) for part, up, down
                 in zip(rows.split(counts.tolist()), self.up, self.down)]
        return torch.cat(parts)

    def balance_loss(self, probabilities, chosen, counts, slots):
        experts = counts.numel()
        if self.settings["balance"]["loss"] == "paper" and slots is not None:
            two = torch.zeros(chosen.shape[0], dtype=torch.bool)
            two[slots[slots % 2 == 1] // 2] = True
            counts = torch.bincount(chosen[~two, 0], minlength=experts)
        share = counts / counts.sum().clamp(min=1)
        return experts * (share * probabilities.mean(dim=0)).sum()


class Decoder(nn.Module):
    def __init__(self, config, options, moe_layer=Moe):
        super().__init__()
        model, moe = config["model"], config["moe"]
        width, hidden = model["width"], model["feed_forward"]
        self.head = options["head"]
        self.tokens = nn.Parameter(torch.empty(model["vocabulary"], width))
        self.positions = nn.Parameter(torch.empty(model["context"], width))
        self.attention = nn.ModuleList(Attention(width, model["heads"])
                                       for _ in range(model["layers"]))
        self.feed = nn.ModuleList(
            moe_layer(width, hidden, moe, options["experts"])
            if moe["experts"] > 0 and (block + 1) % moe["every"] == 0
            else FeedForward(width, hidden) for block in range(model["layers"]))
        self.norm = nn.LayerNorm(width, eps=1e-5)

    def compile_blocks(self):
        for part in [*self.attention, *self.feed]:
            if not isinstance(part, Moe):
                part.compile(dynamic=False)

    def moe_parts(self):
        return [part for part in self.feed if isinstance(part, Moe)]

    def forward(self, tokens, targets):
        """Mean cross-entropy over the targets, and the sum of the MoE layers' balance losses."""
        x = F.embedding(tokens, self.tokens) + self.positions[:tokens.shape[1]]
        for attention, feed in zip(self.attention, self.feed):
            x = feed(attention(x))
        h = self.norm(x).view(-1, x.shape[-1])
        loss = self.entropy(h, targets.view(-1))
        balance = sum((part.balance for part in self.moe_parts()),
                      torch.zeros((), device=x.device))
        return loss, balance

    def entropy(self, h, targets):
        if self.head == "plain":
            return F.cross_entropy(F.linear(h, self.tokens).float(), targets)
        weight = self.tokens
        if torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            h, weight = h.to(kind), weight.to(kind)
        return F.linear_cross_entropy(h, weight, targets,
                                      options=nn.LinearCrossEntropyOptions()).float()


def place_linear(linear, tensors, prefix, expert=None):
    weight, bias = tensors[prefix + "weight"], tensors[prefix + "bias"]
    if expert is not None:
        weight, bias = weight[expert], bias[expert]
    linear.weight.copy_(weight.T)
    linear.bias.copy_(bias)


def place_norm(norm, tensors, prefix):
    norm.weight.copy_(tensors[prefix + "gamma"])
    norm.bias.copy_(tensors[prefix + "beta"])


@torch.no_grad()
def load_initial_weights(model, path):
    tensors = load_file(path)
    model.tokens.copy_(tensors["embedding.tokens"])
    model.positions.copy_(tensors["embedding.positions"])
    place_norm(model.norm, tensors, "final_norm.")
    for block, (attention, feed) in enumerate(zip(model.attention, model.feed)):
        prefix = f"blocks.{block}."
        place_norm(attention.norm, tensors, prefix + "attention_norm.")
        place_linear(attention.qkv, tensors, prefix + "attention.qkv.")
        place_linear(attention.output, tensors, prefix + "attention.output.")
        place_norm(feed.norm, tensors, prefix + "feed_forward_norm.")
        if not isinstance(feed, Moe):
            place_linear(feed.up, tensors, prefix + "feed_forward.up.")
            place_linear(feed.down, tensors, prefix + "feed_forward.down.")
            continue
        feed.gate.copy_(tensors[prefix + "moe.gate.weight"])
        prefix += "moe.experts."
        if feed.form == "grouped":
            for name in ("up", "down"):
                getattr(feed, name).copy_(tensors[f"{prefix}{name}.weight"])
                getattr(feed, f"{name}_bias").copy_(tensors[f"{prefix}{name}.bias"])
            continue
        for expert in range(len(feed.up)):
            place_linear(feed.up[expert], tensors, prefix + "up.", expert)
            place_linear(feed.down[expert], tensors, prefix + "down.", expert)


def make_optimizer(model, settings, form):
    """AdamW; decay on matrices and embeddings, none on biases and norms."""
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        is_bias = name.endswith("bias") or ".norm." in name or name.startswith("norm.")
        (others if is_bias else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings["weight_decay"]},
              {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings["learning_rate"],
                             betas=(settings["beta1"], settings["beta2"]),
                             eps=settings["epsilon"],
                             fused=form == "fused", foreach=form == "foreach")


def active_parameters(config, experts_per_token):
    """Matrix parameters one token is multiplied with (tied head counted once, lookups not)."""
    model, moe = config["model"], config["moe"]
    width, hidden = model["width"], model["feed_forward"]
    total = model["vocabulary"] * width
    for block in range(model["layers"]):
        total += 4 * width * width
        if moe["experts"] > 0 and (block + 1) % moe["every"] == 0:
            total += width * moe["experts"] + experts_per_token * 2 * width * hidden
        else:
            total += 2 * width * hidden
    return total


def flops_per_token(config, experts_per_token):
    """Forward and backward of one token: 6 per active parameter, and causal attention's two
    products of 2 * D * (S / 2) each, three times (forward, two in backward): 6 * layers * D * S."""
    model = config["model"]
    attention = 6 * model["layers"] * model["width"] * model["context"]
    return 6 * active_parameters(config, experts_per_token) + attention


def is_close(a, b, tolerance):
    return math.isfinite(a) and math.isfinite(b) and abs(a - b) <= tolerance
