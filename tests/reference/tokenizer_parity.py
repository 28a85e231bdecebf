#!/usr/bin/env python3
"""Compare the tokenizer with Hugging Face `tokenizers`, id by id.

  tokenizer_parity.py --tool build/cpu-release/bin/tokenize_lines --gpt2 DIR \
      [--files TEXT ...] [--random 1000000] [--every-code-point]

DIR holds GPT-2's tokenizer.json, encoder.json + vocab.bpe or vocab.json + merges.txt (each form
that is there is tried).
Compared are every line of each file, each file whole, and random Unicode strings from all planes.
`tokenizer_fixture.py` writes the small committed sample of this that the test suite runs.
"""
import argparse
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

from tokenizers import ByteLevelBPETokenizer, Tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from tokenizer_strings import every_code_point, random_strings  # noqa: E402


def pack(texts):
    parts = []
    for text in texts:
        data = text.encode("utf-8")
        parts.append(struct.pack("<I", len(data)))
        parts.append(data)
    return b"".join(parts)


def run_tool(tool, spec, texts, special=False, timed=False):
    command = [tool, spec] + ["--special"] * special + ["--time"] * timed
    output = subprocess.run(command, input=pack(texts), stdout=subprocess.PIPE, check=True).stdout
    at, ids = 0, []
    while at < len(output):
        (count,) = struct.unpack_from("<I", output, at)
        ids.append(list(struct.unpack_from(f"<{count}i", output, at + 4)))
        at += 4 + 4 * count
    return ids


def compare(label, tool, specs, reference, texts, special=False, timed=False):
    reference.encode_special_tokens = not special
    expected = [e.ids for e in reference.encode_batch(texts, add_special_tokens=False)]
    wrong = 0
    for spec in specs:
        got = run_tool(tool, spec, texts, special, timed)
        assert len(got) == len(texts), f"{label}: {len(got)} answers to {len(texts)} strings"
        for text, want, have in zip(texts, expected, got):
            if want != have:
                wrong += 1
                if wrong <= 5:
                    print(f"  differs: {text!r}\n    expected {want}\n    got      {have}")
    print(f"{label}: {len(texts)} strings, {sum(map(len, expected))} tokens, "
          f"{len(specs)} file forms: {wrong} differ", flush=True)
    return wrong


PAIRS = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))


def open_reference(folder):
    """The library's tokenizer from the files of `folder`."""
    if (folder / "tokenizer.json").exists():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    for vocabulary, merges in PAIRS:
        if (folder / vocabulary).exists():
            reference = ByteLevelBPETokenizer(str(folder / vocabulary), str(folder / merges))
            reference.add_special_tokens(["<|endoftext|>"])
            return reference._tokenizer
    sys.exit(f"{folder} holds no tokenizer")


def file_forms(folder, scratch):
    """What adagate opens: tokenizer.json, and each pair of files in a folder of its own."""
    specs = [str(folder / "tokenizer.json")] * (folder / "tokenizer.json").exists()
    for pair in PAIRS:
        if not (folder / pair[0]).exists():
            continue
        alone = pathlib.Path(scratch, pair[0])
        alone.mkdir()
        for file in pair:
            (alone / file).symlink_to((folder / file).resolve())
        specs.append(str(alone))
    return specs


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tool", required=True)
    parser.add_argument("--gpt2", required=True, type=pathlib.Path)
    parser.add_argument("--files", nargs="*", default=[], type=pathlib.Path)
    parser.add_argument("--random", type=int, default=20000)
    parser.add_argument("--every-code-point", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    reference = open_reference(args.gpt2)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        specs = file_forms(args.gpt2, folder)
        for file in args.files:
            text = file.read_bytes().decode("utf-8")
            lines = text.split("\n")
            lines = [line + "\n" for line in lines[:-1]] + lines[-1:]
            wrong += compare(f"{file.name} by line", args.tool, specs, reference, lines)
            wrong += compare(f"{file.name} whole", args.tool, specs[:1], reference, [text],
                             timed=True)
        if args.every_code_point:
            wrong += compare("every code point", args.tool, specs[:1], reference,
                             list(every_code_point()))
        source = random.Random(args.seed)
        left, batch = args.random, 0
        while left > 0:
            count = min(left, 100000)
            texts = list(random_strings(source, count))
            wrong += compare(f"random batch {batch}", args.tool, specs[:1], reference, texts,
                             special=batch % 2 == 1)
            left -= count
            batch += 1
    print("identical" if wrong == 0 else f"{wrong} strings differ")
    sys.exit(wrong != 0)


if __name__ == "__main__":
    main()
