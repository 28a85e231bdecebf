"""The cases of the comparison and the files both programs start from.

A case's folder holds case.json (the configuration, sections as in a run's YAML), adagate.yaml,
init.safetensors (initial weights under adagate's global names), tokens.u32 (token ids, 32 bits
little-endian, for PyTorch) and the same ids as adagate's token file, train.tokens.
"""

import itertools
import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy
from safetensors.numpy import save_file

LAYERS, WIDTH, HEADS, CONTEXT, BATCH, EXPERTS = 6, 384, 6, 256, 8, 8
TWO_EXPERT_SHARE = 0.2


@dataclass(frozen=True)
class Case:
    policy: str  # dense, top1, top2, adaptive
    every: int  # one MoE layer in every n blocks; 0: dense
    vocabulary: int
    precision: str
    ranks: int
    threads: int

    @property
    def model_name(self):
        moe = "dense" if self.every == 0 else f"{self.policy}-every{self.every}"
        return f"{moe}-{self.vocabulary}"

    @property
    def name(self):
        return f"{self.model_name}-{self.precision}-{self.ranks}x{self.threads}"


def all_cases():
    models = [("dense", 0)] + [(p, n) for n in (2, 1) for p in ("top1", "top2", "adaptive")]
    return [Case(policy, every, vocabulary, precision, ranks, threads)
            for (ranks, threads), precision, vocabulary, (policy, every) in itertools.product(
                ((1, 2), (2, 1)), ("fp32", "bf16"), (50257, 8192), models)]


def configuration(case, steps):
    """Sections and keys as in a run's YAML."""
    moe = {"experts": 0, "every": 1}
    if case.every:
        gate = {"policy": case.policy, "combine": "raw"}
        if case.policy == "adaptive":
            gate.update(threshold=0.1, normalize="all", k_max=2)
        moe = {"experts": EXPERTS, "every": case.every, "gate": gate,
               "balance": {"loss": "switch" if case.policy == "top2" else "paper",
                           "coefficient": 0.01, "z_coefficient": 0.0}}
    return {
        "seed": 1, "precision": case.precision,
        "model": {"preset": "gpt2", "layers": LAYERS, "width": WIDTH, "heads": HEADS,
                  "feed_forward": 4 * WIDTH, "context": CONTEXT, "vocabulary": case.vocabulary},
        "moe": moe,
        "parallel": {"expert": 1, "threads": case.threads},
        "train": {"length": f"{steps}s", "batch": BATCH, "accumulation": 1,
                  "evaluate_every": "0s", "log_every": 1,
                  "optimizer": {"name": "adamw", "learning_rate": 1e-4, "beta1": 0.9,
                                "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.1,
                                "clip_norm": 1.0},
                  "schedule": {"warmup": "0s", "decay": "constant"}},
    }


def zipf_tokens(vocabulary, count, random):
    """Token ids whose frequency falls as in text, rank ~ 1 / (rank + 10); ids shuffled."""
    weights = 1.0 / (numpy.arange(vocabulary) + 10.0)
    ranks = numpy.searchsorted(numpy.cumsum(weights / weights.sum()), random.random(count))
    names = random.permutation(vocabulary)
    return names[numpy.minimum(ranks, vocabulary - 1)].astype("<u4")


def initial_weights(config, random):
    """As GPT-2's: 0.02, residual outputs 0.02 / sqrt(2 * layers). The gate's logits get a standard
    deviation of 1, so that experts differ in load as in training."""
    model, moe = config["model"], config["moe"]
    width, hidden = model["width"], model["feed_forward"]
    residual = 0.02 / (2 * model["layers"]) ** 0.5
    weights = {}

    def draw(name, shape, scale):
        weights[name] = random.standard_normal(shape, dtype=numpy.float32) * numpy.float32(scale)

    def add_norm(prefix):
        weights[prefix + "gamma"] = numpy.ones(width, numpy.float32)
        weights[prefix + "beta"] = numpy.zeros(width, numpy.float32)

    def add_linear(prefix, inputs, outputs, scale, experts=()):
        draw(prefix + "weight", (*experts, inputs, outputs), scale)
        weights[prefix + "bias"] = numpy.zeros((*experts, outputs), numpy.float32)

    draw("embedding.tokens", (model["vocabulary"], width), 0.02)
    draw("embedding.positions", (model["context"], width), 0.02)
    for block in range(model["layers"]):
        prefix = f"blocks.{block}."
        add_norm(prefix + "attention_norm.")
        add_linear(prefix + "attention.qkv.", width, 3 * width, 0.02)
        add_linear(prefix + "attention.output.", width, width, residual)
        add_norm(prefix + "feed_forward_norm.")
        if moe["experts"] and (block + 1) % moe["every"] == 0:
            draw(prefix + "moe.gate.weight", (width, moe["experts"]), width ** -0.5)
            experts = (moe["experts"],)
            add_linear(prefix + "moe.experts.up.", width, hidden, 0.02, experts)
            add_linear(prefix + "moe.experts.down.", hidden, width, residual, experts)
        else:
            add_linear(prefix + "feed_forward.up.", width, hidden, 0.02)
            add_linear(prefix + "feed_forward.down.", hidden, width, residual)
    add_norm("final_norm.")
    return weights


def write_token_file(path, tokens, vocabulary, tokenizer_hash):
    """adagate's token file (data/token_file.h): header, ids as u16, document starts as u64. The
    ids are of no real tokenizer: they carry the hash of the byte tokenizer, which adagate is told
    to use, and a larger vocabulary."""
    import xxhash
    ids = tokens.astype("<u2" if vocabulary <= 65536 else "<u4")
    payload = ids.tobytes()
    payload += bytes(-len(payload) % 8) + struct.pack("<Q", 0)
    header = struct.pack("<8sIIIIQQQQ56sQ", b"adagtok", 1, 128, ids.itemsize, 0, len(tokens), 1,
                         vocabulary, tokenizer_hash, b"byte", xxhash.xxh3_64_intdigest(payload))
    path.write_bytes(header + struct.pack("<Q", xxhash.xxh3_64_intdigest(header)) + payload)


def read_tokenizer_hash(path):
    """Of the tokenizer that a token file was written with."""
    return struct.unpack_from("<Q", path.read_bytes(), 48)[0]


def prepare(case, folder, steps, calibrate, tokenizer_hash):
    """Writes the case's folder. `calibrate(folder, config)` returns the threshold at which the
    wanted share of tokens takes two experts (adaptive only). No token file for adagate is written
    when the byte tokenizer's hash is None."""
    folder.mkdir(parents=True, exist_ok=True)
    config = configuration(case, steps)
    random = numpy.random.default_rng(7)
    tokens = zipf_tokens(case.vocabulary, steps * BATCH * CONTEXT + 1, random)
    tokens.tofile(folder / "tokens.u32")
    if tokenizer_hash is not None:
        write_token_file(folder / "train.tokens", tokens, case.vocabulary, tokenizer_hash)
    save_file(initial_weights(config, random), folder / "init.safetensors")
    if case.policy == "adaptive":
        config["moe"]["gate"]["threshold"] = calibrate(folder, config)
    (folder / "case.json").write_text(json.dumps(config, indent=1))
    run = dict(config)
    run["output"] = str(folder / "run")
    run["data"] = {"tokenizer": "byte", "train": str(folder / "train.tokens"), "shuffle": False}
    run["checkpoint"] = {"every": "0s", "save_at_end": False,
                         "initial_weights": str(folder / "init.safetensors")}
    # JSON is YAML: no YAML library is needed.
    (folder / "adagate.yaml").write_text(json.dumps(run, indent=1) + "\n")
    return config


def load_peaks(path):
    """Peaks in GFLOP/s by precision, from what `adagate bench --json` writes or from
    {"fp32_gflops": x, "bf16_gflops": y}."""
    values = json.loads(Path(path).read_text())
    if "peaks" in values:
        def best(kind):  # of all units that multiply in this type
            return max(row["gflops"] for row in values["peaks"]["rows"]
                       if row["what"].split()[0] == kind)

        return {"fp32": best("f32"), "bf16": max(best("f32"), best("bf16"))}
    return {kind: float(values[f"{kind}_gflops"]) for kind in ("fp32", "bf16")
            if f"{kind}_gflops" in values}
