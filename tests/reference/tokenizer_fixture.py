#!/usr/bin/env python3
"""Write the committed tokenizer fixtures: fixtures/tokenizer.json, a byte-level BPE of 500 merges
trained on the text given (Shakespeare: public domain), and fixtures/tokenizer_cases.json, strings
with the ids that Hugging Face `tokenizers` gives them.

  tokenizer_fixture.py --text tinyshakespeare/input.txt
"""
import argparse
import json
import pathlib
import random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tokenizer_strings import (CONTRACTIONS, EMOJI, LETTERS, MARKS, NOT_SPACES, NUMBERS, SPACES,
                               random_strings)

FIXTURES = pathlib.Path(__file__).parent / "fixtures"


def train(text):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=256 + 500 + 1, special_tokens=["<|endoftext|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return tokenizer


def cases(text):
    yield ""
    for piece in (*SPACES, *NOT_SPACES, *MARKS, *EMOJI, *NUMBERS, *LETTERS, *CONTRACTIONS):
        yield f"a{piece}b {piece}1{piece}{piece}! {piece}"
    yield from ("a" * 300, " " * 300 + "x", "\n" * 40, "the" * 40, "!" * 65, "'" * 33 + "s")
    yield from text.splitlines(keepends=True)[:200]
    yield text[:2000]
    yield from random_strings(random.Random(7), 1600)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", required=True, type=pathlib.Path)
    text = parser.parse_args().text.read_text()
    tokenizer = train(text[:400000])
    tokenizer.save(str(FIXTURES / "tokenizer.json"))
    rows = []
    for string in cases(text):
        tokenizer.encode_special_tokens = True  # written-out special tokens stay text
        plain = tokenizer.encode(string).ids
        tokenizer.encode_special_tokens = False
        special = tokenizer.encode(string).ids
        rows.append([string, plain] + ([special] if special != plain else []))
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    (FIXTURES / "tokenizer_cases.json").write_text(f"[\n{lines}\n]\n")
    print(len(rows), "cases")


if __name__ == "__main__":
    main()
