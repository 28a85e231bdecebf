"""What PyTorch does on this GPU with single parts: the measure beside adagate's own.

Copy, a large product, attention, and an MoE layer with its norm and residual, forward and backward,
compiled; medians by events. Prints one JSON object.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F

from torch_gpt2 import GroupedMoe, pytorch_model


def median_ms(device, work, seconds=0.4, most=50):
    """Of single runs, after three that don't count."""
    on_gpu = torch.device(device).type == "cuda"

    def once():
        if not on_gpu:
            start = time.perf_counter()
            work()
            return 1e3 * (time.perf_counter() - start)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    for _ in range(3):
        once()
    times, stop = [], time.monotonic() + seconds
    while len(times) < 3 or (time.monotonic() < stop and len(times) < most):
        times.append(once())
    return statistics.median(times)


def copy_rate(args):
    source = torch.randn(args.copy_mib << 18, device=args.device)
    target = torch.empty_like(source)
    ms = median_ms(args.device, lambda: target.copy_(source))
    return 2 * source.numel() * 4 / ms / 1e6  # GB/s, read and written


def product_rate(args):
    a, b = (torch.randn(args.side, args.side, device=args.device, dtype=torch.bfloat16)
            for _ in range(2))
    return 2 * args.side ** 3 / median_ms(args.device, lambda: a @ b) / 1e9  # TFLOP/s


def attention_ms(args):
    """Forward, and backward alone, of causal attention with the rows of the measured model."""
    shape = (args.batch, args.heads, args.context, 64)
    q, k, v = (torch.randn(shape, device=args.device, dtype=torch.bfloat16, requires_grad=True)
               for _ in range(3))

    def forward():
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    y = forward()
    dy = torch.randn_like(y)
    back = median_ms(args.device,
                     lambda: torch.autograd.grad(y, (q, k, v), dy, retain_graph=True))
    return {"forward_ms": median_ms(args.device, forward), "backward_ms": back}


def layer_ms(args, layer):
    layer = layer.to(args.device)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.02)
    x = torch.randn(1, args.tokens, args.width, device=args.device, requires_grad=True)
    dy = torch.randn(1, args.tokens, args.width, device=args.device)
    run = layer if args.no_compile else torch.compile(layer, dynamic=False)

    def step():
        with torch.autocast(torch.device(args.device).type, torch.bfloat16):
            y = run(x)
        y.backward(dy)
        layer.zero_grad(set_to_none=True)
        x.grad = None

    return median_ms(args.device, step)


def moe_layer(args, experts):
    return GroupedMoe(args.width, args.hidden, {
        "experts": experts, "gate": {"policy": "top2"}, "balance": {"loss": "switch"}}, "grouped")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--copy-mib", type=int, default=2048)
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    result = {"torch": torch.__version__, "copy_gbytes": copy_rate(args),
              "product_tflops": product_rate(args), "attention": attention_ms(args),
              "feed_forward_ms": layer_ms(args, pytorch_model.FeedForward(args.width, args.hidden)),
              "moe_ms": {str(experts): layer_ms(args, moe_layer(args, experts))
                         for experts in (8, 16)}}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
