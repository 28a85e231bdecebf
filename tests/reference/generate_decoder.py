"""Decoder fixtures from Transformers: GPT2LMHeadModel and LlamaForCausalLM.

Each fixture: weights under adagate's names, a batch, its logits, loss and every gradient, the same
with unequal lengths and right padding, and 20 AdamW steps. Formats: README.md beside this file.
Run: python tests/reference/generate_decoder.py   (needs torch, transformers, safetensors)
"""

from dataclasses import dataclass

import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import common
import plain_model

GPT2 = {
    "layers": 3, "width": 32, "heads": 4, "kv_heads": 4, "feed_forward": 64, "context": 24,
    "vocabulary": 97, "positions": "learned", "norm": "layer_norm", "norm_epsilon": 1e-5,
    "activation": "gelu", "bias": True, "tie_embeddings": True, "dropout": 0.0,
}
LLAMA = {
    "layers": 3, "width": 32, "heads": 4, "kv_heads": 2, "feed_forward": 48, "context": 24,
    "vocabulary": 97, "positions": "rotary", "rotary_base": 10000.0, "norm": "rms_norm",
    "norm_epsilon": 1e-5, "activation": "swiglu", "bias": False, "tie_embeddings": False,
    "dropout": 0.0,
}
# Odd sizes all over, the exact gelu and an output head of its own.
GPT2_ODD = {**GPT2, "layers": 2, "width": 21, "heads": 3, "kv_heads": 3, "feed_forward": 31,
            "context": 33, "vocabulary": 53, "norm_epsilon": 1e-6, "activation": "gelu_erf",
            "tie_embeddings": False}
# Late positions, where the rounding of rotary angles shows; one key head for all, tied.
LLAMA_LONG = {**LLAMA, "layers": 2, "width": 24, "heads": 3, "kv_heads": 1, "feed_forward": 17,
              "context": 600, "vocabulary": 13, "norm_epsilon": 1e-6, "tie_embeddings": True}
TRAIN_STEPS = 20


@dataclass
class Sizes:
    """Of each batch; `lengths` are those of the padded one."""

    lengths: list[int]
    length: int = 20
    accumulation: int = 2
    weight_scale: float = 0.2

    @property
    def batch(self):
        return len(self.lengths)


GPT2_ACTIVATIONS = {"gelu": "gelu_new", "gelu_erf": "gelu", "relu": "relu", "silu": "silu"}


def build_gpt2(c):
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=c["vocabulary"], n_positions=c["context"], n_embd=c["width"],
        n_layer=c["layers"], n_head=c["heads"], n_inner=c["feed_forward"],
        activation_function=GPT2_ACTIVATIONS[c["activation"]],
        layer_norm_epsilon=c["norm_epsilon"], resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        tie_word_embeddings=c["tie_embeddings"], attn_implementation="eager"))


def build_llama(c):
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=c["vocabulary"], hidden_size=c["width"], intermediate_size=c["feed_forward"],
        num_hidden_layers=c["layers"], num_attention_heads=c["heads"],
        num_key_value_heads=c["kv_heads"], hidden_act="silu", rms_norm_eps=c["norm_epsilon"],
        max_position_embeddings=c["context"],
        rope_parameters={"rope_type": "default", "rope_theta": c["rotary_base"]},
        attention_bias=False, mlp_bias=False, tie_word_embeddings=c["tie_embeddings"],
        attn_implementation="eager"))


def gpt2_names(config):
    """Ours -> list of Transformers' names whose tensors are joined on the columns. GPT-2's Conv1D
    weights are [in, out] as ours are: nothing is transposed."""
    names = {"embedding.tokens": ["transformer.wte.weight"],
             "embedding.positions": ["transformer.wpe.weight"],
             "final_norm.gamma": ["transformer.ln_f.weight"],
             "final_norm.beta": ["transformer.ln_f.bias"]}
    if not config["tie_embeddings"]:
        names["head.weight"] = ["lm_head.weight"]
    for i in range(config["layers"]):
        ours, theirs = f"blocks.{i}.", f"transformer.h.{i}."
        for norm, their_norm in (("attention_norm", "ln_1"), ("feed_forward_norm", "ln_2")):
            names[f"{ours}{norm}.gamma"] = [f"{theirs}{their_norm}.weight"]
            names[f"{ours}{norm}.beta"] = [f"{theirs}{their_norm}.bias"]
        for linear, their_linear in (("attention.qkv", "attn.c_attn"),
                                     ("attention.output", "attn.c_proj"),
                                     ("feed_forward.up", "mlp.c_fc"),
                                     ("feed_forward.down", "mlp.c_proj")):
            for part in ("weight", "bias"):
                names[f"{ours}{linear}.{part}"] = [f"{theirs}{their_linear}.{part}"]
    return names


def llama_names(config):
    """As gpt2_names; Linear weights are [out, in] there, so blocks' weights are transposed."""
    names = {"embedding.tokens": ["model.embed_tokens.weight"],
             "final_norm.gamma": ["model.norm.weight"]}
    if not config["tie_embeddings"]:
        names["head.weight"] = ["lm_head.weight"]
    for i in range(config["layers"]):
        ours, theirs = f"blocks.{i}.", f"model.layers.{i}."
        names[ours + "attention_norm.gamma"] = [theirs + "input_layernorm.weight"]
        names[ours + "feed_forward_norm.gamma"] = [theirs + "post_attention_layernorm.weight"]
        names[ours + "attention.qkv.weight"] = [f"{theirs}self_attn.{p}_proj.weight" for p in "qkv"]
        names[ours + "attention.output.weight"] = [theirs + "self_attn.o_proj.weight"]
        names[ours + "feed_forward.up.weight"] = [theirs + "mlp.gate_proj.weight",
                                                  theirs + "mlp.up_proj.weight"]
        names[ours + "feed_forward.down.weight"] = [theirs + "mlp.down_proj.weight"]
    return names


class Reference:
    """A Transformers model seen through adagate's names."""

    def __init__(self, config, build, names, is_transposed):
        self.config, self.build, self.names = config, build, names(config["model"])
        self.is_transposed = is_transposed

    def gather(self, tensors):
        """Transformers' tensors by name -> ours."""
        ours = {}
        for name, parts in self.names.items():
            pieces = [tensors[p].T if self.is_transposed(name) else tensors[p] for p in parts]
            ours[name] = torch.cat(pieces, dim=-1) if len(pieces) > 1 else pieces[0]
        return ours

    def make(self, weights, dtype):
        """A fresh model in `dtype` holding our weights."""
        model = self.build(self.config["model"]).to(dtype).train()
        parameters = dict(model.named_parameters())
        covered = {p for parts in self.names.values() for p in parts}
        assert covered == set(parameters), covered ^ set(parameters)
        with torch.no_grad():
            for name, parts in self.names.items():
                start = 0
                for part in parts:
                    target = parameters[part]
                    value = weights[name]
                    if self.is_transposed(name):
                        value = value[:, start:start + target.shape[0]].T
                        start += target.shape[0]
                    target.copy_(value)
        return model

    def decays(self, their_name):
        ours = next(n for n, parts in self.names.items() if their_name in parts)
        return common.is_decayed(ours)


def forward(model, tokens, lengths=None):
    tokens = tokens.long()
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    mask = None
    if lengths is not None:
        mask = (positions < torch.tensor(lengths)[:, None]).long()
    return model(input_ids=tokens, attention_mask=mask, position_ids=positions).logits


def one_batch(reference, weights, tokens, targets, lengths=None):
    """Logits, mean loss over valid targets and gradients (f32), and the f64 loss and logits."""
    valid = int((targets >= 0).sum())
    results = {}
    for dtype in (torch.float32, torch.float64):
        model = reference.make(weights, dtype)
        logits = forward(model, tokens, lengths)
        loss = common.cross_entropy_sum(logits, targets) / valid
        loss.backward()
        grads = reference.gather({n: p.grad for n, p in model.named_parameters()})
        results[dtype] = (logits.detach(), loss.item(), grads)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rough = forward(reference.make(weights, torch.float32), tokens, lengths).float()
    return results, rough


def train_steps(reference, weights, tokens, targets, dtype):
    """tokens, targets [steps, accumulation, B, S]."""
    model = reference.make(weights, dtype)
    recipe = reference.config["train"]

    def loss_of_step(step):
        valid = int((targets[step] >= 0).sum())  # of the whole global batch
        for micro in range(tokens.shape[1]):
            logits = forward(model, tokens[step, micro])
            yield common.cross_entropy_sum(logits, targets[step, micro]) / valid

    parameters = list(model.named_parameters())
    results = common.train(parameters, reference.decays, loss_of_step, recipe)
    return results, reference.gather({n: p.detach() for n, p in parameters})


def check_plain_model(config, weights, tokens, logits64):
    """The plain PyTorch decoder of the MoE fixtures agrees with Transformers when it is dense."""
    if config["model"]["activation"] not in ("gelu", "swiglu"):
        return
    doubled = {n: w.double() for n, w in weights.items()}
    plain, _ = plain_model.decoder(tokens, doubled, config)
    difference = (plain - logits64).abs().max().item()
    # Llama computes norms, softmax and rotary angles in f32 whatever the model's type.
    assert difference < 3e-5, f"plain decoder differs from Transformers by {difference}"


def as_tensors(prefix, named):
    return {f"{prefix}/{name}": value for name, value in named.items()}


def describe(reference, results, rough, valid_rows):
    single, double = results[torch.float32], results[torch.float64]
    scale = double[0][valid_rows].abs().max().item()
    return {
        "loss": double[1], "loss_f32": single[1],
        "grad_norms": {n: g.norm().item() for n, g in double[2].items()},
        "logits_max_abs": scale,
        "bf16_autocast_max_logit_error": (rough - double[0])[valid_rows].abs().max().item(),
    }


def generate(name, reference, sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    config = reference.config
    vocabulary = config["model"]["vocabulary"]
    weights = plain_model.random_weights(config, generator, scale=sizes.weight_scale)
    tokens, targets = common.next_token_batch(generator, sizes.batch, sizes.length, vocabulary,
                                              0.15)
    results, rough = one_batch(reference, weights, tokens, targets)
    check_plain_model(config, weights, tokens, results[torch.float64][0])

    batches = [[common.next_token_batch(generator, sizes.batch, sizes.length, vocabulary,
                                        0.6 * micro / max(1, sizes.accumulation - 1))
                for micro in range(sizes.accumulation)] for _ in range(TRAIN_STEPS)]
    train_tokens = torch.stack([torch.stack([b[0] for b in step]) for step in batches])
    train_targets = torch.stack([torch.stack([b[1] for b in step]) for step in batches])
    (losses, norms, rates), final = train_steps(reference, weights, train_tokens, train_targets,
                                                torch.float32)
    (losses64, norms64, _), final64 = train_steps(reference, weights, train_tokens, train_targets,
                                                  torch.float64)
    everything = torch.ones(sizes.batch, sizes.length, dtype=torch.bool)
    common.write_fixture(name, {
        **as_tensors("weights", weights),
        "inputs/tokens": tokens, "inputs/targets": targets,
        "logits": results[torch.float64][0].float(),
        **as_tensors("grads", {n: g.float() for n, g in results[torch.float64][2].items()}),
        "train/tokens": train_tokens, "train/targets": train_targets,
    }, {
        "made_with": {"torch": torch.__version__.split("+")[0],
                      "transformers": transformers.__version__},
        "config": config,
        **describe(reference, results, rough, everything),
        "train": {
            "losses": losses64, "losses_f32": losses, "grad_norms": norms64,
            "learning_rates": rates,
            "final_norms": {n: w.norm().item() for n, w in final64.items()},
        },
    })
    worst = max(abs(a - b) for a, b in zip(losses, losses64))
    print(f"  loss {losses64[0]:.4f} -> {losses64[-1]:.4f}, f32 differs by {worst:.1e}; "
          f"norms {min(norms64):.2f}..{max(norms64):.2f}; "
          f"bf16 logits {(rough - results[torch.float64][0]).abs().max():.3f}")

    padded_tokens, padded_targets = common.next_token_batch(
        generator, sizes.batch, sizes.length, vocabulary, 0.0)
    lengths = torch.tensor(sizes.lengths)[:, None]
    inside = torch.arange(sizes.length)[None, :] < lengths
    has_target = torch.arange(sizes.length)[None, :] < lengths - 1
    padded_tokens = torch.where(inside, padded_tokens, 0)
    padded_targets = torch.where(has_target, padded_targets, -1)
    results, rough = one_batch(reference, weights, padded_tokens, padded_targets,
                               sizes.lengths)
    logits = torch.where(inside[:, :, None], results[torch.float64][0], 0.0)
    common.write_fixture(name + "_padded", {
        "inputs/tokens": padded_tokens, "inputs/targets": padded_targets,
        "inputs/lengths": torch.tensor(sizes.lengths, dtype=torch.int32),
        "logits": logits.float(),
        **as_tensors("grads", {n: g.float() for n, g in results[torch.float64][2].items()}),
    }, {
        "config": config, "weights_from": name + ".safetensors",
        **describe(reference, results, rough, inside),
    })


def gpt2(model, sizes):
    return Reference(whole_config(model, sizes), build_gpt2, gpt2_names, lambda name: False)


def llama(model, sizes):
    return Reference(whole_config(model, sizes), build_llama, llama_names,
                     lambda name: name.endswith(".weight") and name.startswith("blocks."))


def whole_config(model, sizes):
    return {"model": model, "moe": {"experts": 0},
            "train": common.training_config(sizes.batch * sizes.accumulation, TRAIN_STEPS,
                                            sizes.accumulation)}


def main():
    common.make_deterministic()
    usual, odd = Sizes([20, 7, 1]), Sizes([33, 2, 31, 18], length=33, accumulation=3)
    long = Sizes([431], length=600)
    for name, family, model, sizes, seed in (
            ("gpt2", gpt2, GPT2, usual, 11), ("llama", llama, LLAMA, usual, 12),
            ("gpt2_odd", gpt2, GPT2_ODD, odd, 13), ("llama_long", llama, LLAMA_LONG, long, 14)):
        generate(name, family(model, sizes), sizes, seed)


if __name__ == "__main__":
    main()
