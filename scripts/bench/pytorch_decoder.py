"""Trains one case of the comparison in PyTorch on the CPU and writes what it measured as JSON.

One process per rank. With RANK and WORLD_SIZE in the environment the ranks form a gloo group and
train by DistributedDataParallel, each on its part of every batch. vs_pytorch.py prepares the
case's folder (case.json, init.safetensors, tokens.u32) and starts this; by hand:
  python scripts/bench/pytorch_decoder.py --case-dir DIR --steps 10 --threads 2 --result out.json
"""

import argparse
import contextlib
import functools
import json
import os
import time
from pathlib import Path

import numpy
import torch

import pytorch_model


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case-dir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpus", default="", help="comma separated; this rank is bound to them")
    parser.add_argument("--optimizer", choices=["fused", "foreach"], default="fused")
    parser.add_argument("--head", choices=["plain", "chunked"], default="plain")
    parser.add_argument("--experts", choices=["loop", "grouped"], default="loop")
    parser.add_argument("--compile", choices=["none", "blocks"], default="none")
    parser.add_argument("--result", type=Path, help="rank 0 writes its JSON here")
    parser.add_argument("--calibrate", type=float, metavar="SHARE",
                        help="train nothing; write the adaptive gate's threshold at which this "
                             "share of tokens takes two experts")
    return parser.parse_args()


def read_batches(case_dir, config, steps, rank, ranks):
    """Sample i is tokens [i * S, i * S + S]; step s takes samples [s * B, (s + 1) * B) in order."""
    context, batch = config["model"]["context"], config["train"]["batch"]
    tokens = numpy.fromfile(case_dir / "tokens.u32", dtype="<u4").astype(numpy.int64)
    share = batch // ranks
    for step in range(steps):
        first = step * batch + rank * share
        rows = numpy.stack([tokens[i * context:i * context + context + 1]
                            for i in range(first, first + share)])
        rows = torch.from_numpy(rows)
        yield rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def peak_memory():
    """Bytes; the high-water mark of this process's resident set."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def train(args, config, rank, ranks):
    model = pytorch_model.Decoder(config, vars(args))
    pytorch_model.load_initial_weights(model, args.case_dir / "init.safetensors")
    settings = config["train"]["optimizer"]
    optimizer = pytorch_model.make_optimizer(model, settings, args.optimizer)
    if args.compile == "blocks":
        model.compile_blocks()
    runner = model
    if ranks > 1:
        runner = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    parameters = list(model.parameters())
    is_bf16 = config["precision"] == "bf16"
    coefficient = config["moe"]["balance"]["coefficient"] if config["moe"]["experts"] else 0.0
    measured = {"losses": [], "step_seconds": [], "two_expert_share": []}
    batches = read_batches(args.case_dir, config, args.steps, rank, ranks)
    for tokens, targets in batches:
        if ranks > 1:
            torch.distributed.barrier()
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16) if is_bf16 else contextlib.nullcontext():
            loss, balance = runner(tokens, targets)
        (loss + coefficient * balance).backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings["clip_norm"], foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        shares = [part.two_expert_tokens for part in model.moe_parts()]
        values = torch.tensor([loss.item(), sum(shares) / len(shares) if shares else 0.0])
        if ranks > 1:
            torch.distributed.all_reduce(values)
            values /= ranks
        measured["step_seconds"].append(time.perf_counter() - start)
        measured["losses"].append(values[0].item())
        measured["two_expert_share"].append(values[1].item())
    return measured


@torch.no_grad()
def calibrate(args, config):
    """The gaps depend on the threshold through earlier layers: a few rounds settle it."""
    model = pytorch_model.Decoder(config, vars(args))
    pytorch_model.load_initial_weights(model, args.case_dir / "init.safetensors")
    tokens, targets = next(read_batches(args.case_dir, config, 1, 0, 1))
    gate = config["moe"]["gate"]
    gaps = []

    def note_gaps(part, h, probabilities):
        top = probabilities.topk(2, dim=-1).values
        gaps.append(top[:, 0] - top[:, 1])
        return type(part).mix(part, h, probabilities)

    for part in model.moe_parts():
        part.mix = functools.partial(note_gaps, part)
    for _ in range(4):
        gaps.clear()
        model(tokens, targets)
        gate["threshold"] = round(torch.cat(gaps).quantile(args.calibrate).item(), 6)
    return {"threshold": gate["threshold"]}


def main():
    args = arguments()
    if args.cpus:
        os.sched_setaffinity(0, {int(c) for c in args.cpus.split(",")})
    torch.set_num_threads(args.threads)
    config = json.loads((args.case_dir / "case.json").read_text())
    if args.calibrate is not None:
        args.result.write_text(json.dumps(calibrate(args, config)))
        return
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if ranks > 1:
        torch.distributed.init_process_group("gloo")
    result = train(args, config, rank, ranks)
    memory = torch.tensor([peak_memory()])
    if ranks > 1:
        torch.distributed.all_reduce(memory)
        torch.distributed.destroy_process_group()
    result.update(torch=torch.__version__, threads=args.threads, ranks=ranks,
                  peak_memory=memory.item(), options={
                      key: getattr(args, key)
                      for key in ("optimizer", "head", "experts", "compile")})
    if rank == 0 and args.result:
        args.result.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
