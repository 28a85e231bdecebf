"""Fixtures of random models, to see that parity does not end with the committed ones.

    python tests/reference/sweep.py FOLDER [--count N] [--seed S]
    ADAGATE_FIXTURES=FOLDER build/cpu-release/bin/test_models "[reference]"
    ADAGATE_FIXTURES=FOLDER build/cpu-release/bin/test_train "[reference]"
    ADAGATE_FIXTURES=FOLDER build/cpu-release/bin/test_moe "[reference]"

Widths, heads, vocabularies, lengths and settings are drawn at random. The tests' own bounds are
those of the committed fixtures, several times tighter than what is promised.
A run that PyTorch's own f32 leaves (`train.losses_f32` beside `train.losses`: a ReLU that flips,
steps that magnify round-off) leaves them too.
"""
import argparse
import itertools
import pathlib
import random

import common
import generate_decoder
import generate_moe


def draw_decoder(draw):
    """Model, sizes and family of one decoder; weights keep the variance of what passes through."""
    heads = draw.choice([1, 2, 3, 5, 8])
    width = heads * draw.choice([4, 6, 10, 16, 34, 64])
    length = draw.choice([2, 7, 31, 33, 65, 130, 257])
    lengths = [length, *(draw.randint(2, length) for _ in range(draw.choice([0, 1, 4])))]
    sizes = generate_decoder.Sizes(lengths, length, draw.choice([1, 2, 3]), 1 / width ** 0.5)
    model = {"layers": draw.choice([1, 2, 4]), "width": width, "heads": heads, "kv_heads": heads,
             "feed_forward": draw.choice([5, 33, 64, 130]),
             "context": length + draw.choice([0, 3]),
             "vocabulary": draw.choice([3, 50, 101, 257, 1031, 4099]),
             "norm_epsilon": draw.choice([1e-5, 1e-6, 1e-3]), "dropout": 0.0,
             "tie_embeddings": draw.random() < 0.5}
    if draw.random() < 0.5:
        model |= {"positions": "learned", "norm": "layer_norm", "bias": True,
                  "activation": draw.choice(["gelu", "gelu_erf", "relu", "silu"])}
        return model, sizes, generate_decoder.gpt2
    model |= {"kv_heads": draw.choice([k for k in range(1, heads + 1) if heads % k == 0]),
              "positions": "rotary", "rotary_base": draw.choice([1e4, 5e5, 100.0]),
              "norm": "rms_norm", "activation": "swiglu", "bias": False}
    return model, sizes, generate_decoder.llama


def moe_cases():
    """Every policy, combine form and balance loss with every other; padding takes turns."""
    adaptive = [generate_moe.adaptive(normalize, "", k_max, threshold)
                for normalize, thresholds in (("all", (0.08, 0.2)), ("pair", (0.2, 0.4)))
                for k_max in (2, 3) for threshold in thresholds]
    gates = [{"policy": "top1"}, {"policy": "top2"}, {"policy": "topk", "k": 3}, *adaptive]
    for index, (gate, combine, balance, activation) in enumerate(itertools.product(
            gates, ("raw", "renormalized"), ("paper", "switch"), ("gelu", "swiglu"))):
        yield {"name": f"case{index}", "gate": {**gate, "combine": combine}, "balance": balance,
               "activation": activation, "bias": index % 3 != 0, "padding": index % 2 == 1}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    common.FIXTURES = arguments.folder
    common.make_deterministic()
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        model, sizes, family = draw_decoder(random.Random(seed))
        print(model, sizes)
        generate_decoder.generate(f"{family.__name__}_{seed}", family(model, sizes), sizes, seed)
    for case in moe_cases():
        generate_moe.write_layer(case)


if __name__ == "__main__":
    main()
