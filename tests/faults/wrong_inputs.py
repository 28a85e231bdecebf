#!/usr/bin/env python3
"""Wrong inputs of every kind on two ranks: wrong_inputs.py PROGRAM [--table]

Each must end all ranks with exactly one message that names the file, key or number at fault, a
non-zero exit code, soon, and leave nothing behind. --table prints messages and exit codes in full.
"""
import argparse
import sys

from harness import Program, Report, REPO, Scratch, checkpoints, require_mpirun

BOUND = 6.0  # seconds; half a second on a machine of one's own


class Inputs:
    """The wrong inputs, made of right ones in a scratch folder. Each case is (what, words that the
    message must hold, arguments)."""

    def __init__(self, scratch, program):
        self.folder = scratch.path
        self.right = scratch.config("run", expert=2, length="4s")
        self.tokens = self.folder / "text.tokens"
        code, output, _ = program.run(0, "tokenize", "--tokenizer", "byte", "--output",
                                      self.tokens, self.folder / "text.txt")
        assert code == 0, output
        other = scratch.config("other", expert=2, length="2s", width=48)
        program.train(2, other)
        self.foreign = checkpoints(self.folder / "other")[2]

    def edited(self, name, old, new):
        """The right config with one piece of text replaced; and the line it is on."""
        text = self.right.read_text()
        assert old in text, old
        file = self.folder / f"{name}.yaml"
        file.write_text(text.replace(old, new))
        return file, f"{name}.yaml:{text[:text.index(old)].count(chr(10)) + 1}"

    def flip_shard(self):
        """A copy of the foreign checkpoint with one bit of a shard changed."""
        copy = self.folder / "flipped/checkpoints" / self.foreign.name
        copy.mkdir(parents=True)
        for file in self.foreign.iterdir():
            data = bytearray(file.read_bytes())
            if file.name.startswith("shard-00001"):
                data[-5] ^= 0x10
            (copy / file.name).write_bytes(data)
        return copy

    def cases(self):
        ok, folder = self.right, self.folder
        text = folder / "text.txt"
        (folder / "empty.txt").write_bytes(b"")
        (folder / "truncated.tokens").write_bytes(self.tokens.read_bytes()[:-64])
        (folder / "no_checkpoint").mkdir()
        (folder / "changed.txt").write_bytes(text.read_bytes().swapcase())
        misspelt, misspelt_line = self.edited("misspelt", "accumulation:", "acumulation:")
        typed, typed_line = self.edited("typed", "batch: 8", "batch: eight")
        broken, broken_line = self.edited("broken", "layers: 2", "layers: [2")
        bpe = REPO / "tests/reference/fixtures/tokenizer.json"

        def with_set(*pairs):
            return [argument for pair in pairs for argument in ("--set", pair)]

        return [
            ("misspelt key", [misspelt_line, "'acumulation'", "'accumulation'"], [misspelt]),
            ("wrong type", [typed_line, "train.batch", "integer", "'eight'"], [typed]),
            ("3 experts on 2 ranks",
             ["run.yaml:", "--set moe.experts=3", "moe.experts is 3", "parallel.expert is 2"],
             [ok, *with_set("moe.experts=3")]),
            ("missing file", ["data.train", "nowhere.txt", "does not exist"],
             [ok, *with_set(f"data.train={folder}/nowhere.txt")]),
            ("truncated token file", ["truncated.tokens", "truncated", "adagate tokenize"],
             [ok, *with_set(f"data.train={folder}/truncated.tokens")]),
            ("foreign checkpoint", ["run.yaml:", "model.width is 32", str(self.foreign), "had 48"],
             [ok, f"--resume={self.foreign}"]),
            ("tokenizer mismatch", ["text.tokens", "another tokenizer", "'byte'", "'bpe'"],
             [ok, *with_set(f"data.train={self.tokens}", f"data.tokenizer={bpe}")]),
            ("unwritable output", [f"{text}/out", "is a file, not a directory"],
             [ok, "--output", f"{text}/out"]),
            ("zero-length data", ["data.train", "empty.txt", "is empty"],
             [ok, *with_set(f"data.train={folder}/empty.txt")]),
            ("bad --set", ["--set 'train.batch'", "key.path=value"],
             [ok, *with_set("train.batch")]),
            # More of the same kinds.
            ("--set of an unknown key", ["--set train.bath=4", "'batch'"],
             [ok, *with_set("train.bath=4")]),
            ("missing config", ["nowhere.yaml", "no such file"], [folder / "nowhere.yaml"]),
            ("broken YAML", ["broken.yaml", "YAML syntax"], [broken]),
            ("unknown option", ["'--overwite'", "'--overwrite'"], [ok, "--overwite"]),
            ("missing tokenizer", ["nowhere.json", "no such file"],
             [ok, *with_set(f"data.tokenizer={folder}/nowhere.json")]),
            ("no checkpoint there", ["no_checkpoint", "manifest.json"],
             [ok, f"--resume={folder}/no_checkpoint"]),
            ("bit-flipped shard", ["shard-00001-of-00002.safetensors", "checksum"],
             [ok, "--set", "model.width=48", f"--resume={self.flip_shard()}"]),
            ("resume on other data", ["data.train", "changed.txt", "another --output"],
             [folder / "other.yaml", "--resume=auto",
              *with_set(f"data.train={folder}/changed.txt", "train.length=4s")]),
            ("resume with other heads", ["model.heads is 4", "had 2"],
             [folder / "other.yaml", "--resume=auto",
              *with_set("model.heads=4", "train.length=4s")]),
            ("resume under another gate",
             ["moe.gate.threshold is 0.3", "had 0.02", "--allow-change moe.gate.threshold"],
             [folder / "other.yaml", "--resume=auto",
              *with_set("model.width=48", "moe.gate.threshold=0.3", "train.length=4s")]),
            ("change allowed to a key that is none", ["moe.gate.treshold", "moe.gate.threshold'"],
             [ok, "--allow-change", "moe.gate.treshold"]),
            ("output of another run", [f"{folder}/other", "--resume=auto", "--overwrite"],
             [ok, "--set", "model.width=48", "--output", folder / "other"]),
        ]


def listing(folder):
    return {str(p.relative_to(folder)): None if p.is_dir() else p.read_bytes()
            for p in folder.rglob("*")}


def messages_of(output):
    """Text of each of our messages, without what mpirun adds."""
    lines, messages, inside = output.splitlines(), [], False
    for line in lines:
        if line.startswith("adagate") and ": error: " in line:
            messages.append(line)
            inside = True
        elif line.startswith("-----"):
            inside = False
        elif inside and line.strip():
            messages[-1] += "\n" + line
    return messages


def refuse(program, folder, words, arguments, table):
    before = listing(folder)
    code, output, seconds = program.run(2, "train", *arguments)
    if seconds >= BOUND:  # once more: another process may have had the machine
        code, output, seconds = program.run(2, "train", *arguments)
    messages = messages_of(output)
    assert code != 0, f"exit code 0:\n{output}"
    assert len(messages) == 1, f"{len(messages)} messages:\n{output}"
    missing = [word for word in words if word not in messages[0]]
    assert not missing, f"the message lacks {missing}: {messages[0]}"
    assert "terminate called" not in output and "Signal:" not in output, output
    assert seconds < BOUND, f"took {seconds:.1f} s"
    after = listing(folder)
    changed = [name for name in {*before, *after} if before.get(name, 0) != after.get(name, 0)]
    assert not changed, f"left behind or changed: {sorted(changed)}"
    shown = messages[0] if table else messages[0].splitlines()[0]
    return f"exit code {code}, {shown}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--table", action="store_true", help="whole messages")
    arguments = parser.parse_args()
    require_mpirun()
    program, report = Program(arguments.program), Report()
    with Scratch(3400) as scratch:
        for name, words, args in Inputs(scratch, program).cases():
            report.case(name, refuse, program, scratch.path, words, args, arguments.table)
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
