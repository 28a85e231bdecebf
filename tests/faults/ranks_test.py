#!/usr/bin/env python3
"""Ranks that were not started alike, two of them on one machine: ranks_test.py PROGRAM

Each difference must end both ranks, soon and non-zero, with exactly one message that names the key,
option or file and both values, and change nothing on the disk. What may differ must train as ever,
and commands that ranks run each for themselves must do every rank's work.
"""
import argparse
import os
import shutil
import subprocess
import sys

from harness import MPIRUN, REPO, Program, Report, Scratch, environment, finish, require_mpirun
from wrong_inputs import listing, messages_of

BOUND = 8.0  # seconds; half a second on a machine of one's own


class Ranks:
    def __init__(self, scratch, program):
        self.folder, self.program = scratch.path, program
        self.config = scratch.config("run", length="2s", every="2s")
        text = (self.folder / "text.txt").read_bytes()
        (self.folder / "copy.txt").write_bytes(text)
        (self.folder / "other.txt").write_bytes(text.swapcase())
        for name in ("text", "other"):
            code, output, _ = program.run(0, "tokenize", self.folder / f"{name}.txt", "--output",
                                          self.folder / f"{name}.tokens")
            assert code == 0, output
        self.other_program = self.folder / "adagate"
        shutil.copy(program.path, self.other_program)
        with open(self.other_program, "ab") as file:
            file.write(b"\0")
        trained = scratch.config("trained", length="2s", every="1s")
        program.train(2, trained)
        self.trained = self.folder / "trained"

    def start(self, first, second, second_program=None, env=None):
        """Two ranks, each with its own arguments: exit code, output, seconds."""
        second_command = [str(second_program or self.program.path), *map(str, second)]
        if env:
            second_command = ["env", *env, *second_command]
        command = [MPIRUN, "-n", "1", self.program.path, *map(str, first), ":", "-n", "1",
                   *second_command]
        return finish(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                       text=True, env=environment(), start_new_session=True,
                                       cwd=self.folder))

    def refuse(self, words, first, second, **how):
        before = listing(self.folder)
        code, output, seconds = self.start(first, second, **how)
        if seconds >= BOUND:  # once more: another process may have had the machine
            code, output, seconds = self.start(first, second, **how)
        messages = messages_of(output)
        assert code != 0, f"exit code 0:\n{output}"
        assert len(messages) == 1, f"{len(messages)} messages:\n{output}"
        missing = [word for word in words if word not in messages[0]]
        assert not missing, f"the message lacks {missing}: {messages[0]}"
        assert seconds < BOUND, f"took {seconds:.1f} s"
        after = listing(self.folder)
        changed = [name for name in {*before, *after} if before.get(name, 0) != after.get(name, 0)]
        assert not changed, f"left behind or changed: {sorted(changed)}"
        return messages[0]

    def train(self, *arguments):
        return ["train", self.config, *arguments]

    def differ(self):
        """(what, words of the message, arguments of rank 0, of rank 1, how)"""
        folder = self.folder

        def set_(*pairs):
            return [argument for pair in pairs for argument in ("--set", pair)]

        for key, old, new in [("train.optimizer.learning_rate", "0.003", "0.5"),
                              ("seed", "7", "8"), ("train.batch", "8", "16"),
                              ("model.dropout", "0.1", "0.5"),
                              ("moe.gate.threshold", "0.02", "0.9"), ("model.width", "32", "64"),
                              ("data.shuffle", "true", "false"), ("precision", "fp32", "bf16"),
                              ("parallel.expert", "1", "2"), ("checkpoint.keep", "2", "1")]:
            yield (key, [f"{key} is {old} on rank 0, {new} on rank 1: start all ranks"],
                   self.train(), self.train(*set_(f"{key}={new}")), {})
        yield ("a key in a dry run", ["seed is 7 on rank 0, 8 on rank 1"],
               self.train("--dry-run"), self.train("--dry-run", *set_("seed=8")), {})
        yield ("--dry-run", ["the command is train on rank 0, train --dry-run on rank 1"],
               self.train(), self.train("--dry-run"), {})
        yield ("--overwrite", ["--overwrite is not given on rank 0, given on rank 1"],
               self.train(), self.train("--overwrite"), {})
        yield ("--resume", ["checkpoint.resume is", "none on rank 0", "auto"],
               self.train(), self.train("--resume=auto"), {})
        yield ("the command", ["the command is train on rank 0, evaluate on rank 1"],
               self.train(), ["evaluate", self.trained], {})
        yield ("text", ["data.train is", "text.txt (content ", "other.txt (content "],
               self.train(), self.train(*set_(f"data.train={folder}/other.txt")), {})
        yield ("token file", ["data.train is", "text.tokens (content ", "other.tokens (content "],
               self.train(*set_(f"data.train={folder}/text.tokens")),
               self.train(*set_(f"data.train={folder}/other.tokens")), {})
        yield ("tokenizer", ["data.tokenizer is byte (content ", "tokenizer.json (content "],
               self.train(),
               self.train(*set_(f"data.tokenizer={REPO}/tests/reference/fixtures/tokenizer.json")),
               {})
        yield ("checkpoint", ["checkpoint.resume is", "step-00000001", "step-00000002"],
               self.train(f"--resume={self.trained}/checkpoints/step-00000001"),
               self.train(f"--resume={self.trained}/checkpoints/step-00000002"), {})
        yield ("program", ["the program is adagate", " on rank 0, ", " on rank 1: install"],
               self.train(), self.train(), {"second_program": self.other_program})
        yield ("environment", ["ONEDNN_DEFAULT_FPMATH_MODE is not set on rank 0, BF16 on rank 1"],
               self.train(), self.train(), {"env": ["ONEDNN_DEFAULT_FPMATH_MODE=BF16"]})
        yield ("wrong key on one rank", ["--set train.bath=4", "[on rank 1]"],
               self.train(), self.train(*set_("train.bath=4")), {})
        yield ("no configuration on one rank", ["nowhere.yaml", "[on rank 1]"],
               self.train(), ["train", "nowhere.yaml"], {})
        yield ("no data on one rank", ["data.train", "nowhere.txt", "[on rank 1]"],
               self.train(), self.train(*set_(f"data.train={folder}/nowhere.txt")), {})
        yield ("output", ["output is not one folder", f"{folder}/else on rank 1",
                          f"rank 0 writes to {folder}/run"],
               self.train(), self.train("--output", folder / "else"), {})
        yield ("evaluate --samples", ["--samples is 4 on rank 0, 5 on rank 1"],
               ["evaluate", self.trained, "--data", folder / "text.tokens", "--samples", "4"],
               ["evaluate", self.trained, "--data", folder / "text.tokens", "--samples", "5"], {})
        yield ("generate --seed", ["--seed is 1 on rank 0, 2 on rank 1"],
               ["generate", self.trained, "--seed", "1"],
               ["generate", self.trained, "--seed", "2"], {})
        yield ("bench --width", ["--width is 32 on rank 0, 64 on rank 1"],
               ["bench", "--section", "moe", "--width", "32"],
               ["bench", "--section", "moe", "--width", "64"], {})

    def may_differ(self):
        code, output, _ = self.start(
            self.train(),
            self.train("--set", f"data.train={self.folder}/copy.txt", "--set", "parallel.threads=2",
                       "--set", "data.prefetch=0", "--set", "log_level=error"))
        assert code == 0, output
        assert "threads      1 to 2 per rank; 1 on rank 0" in output, output
        assert not list((self.folder / "run").glob(".adagate*")), "the marker is still there"

    def every_rank_works(self):
        rank = "$OMPI_COMM_WORLD_RANK"
        names = {"0": "text", "1": "other"}
        for number, name in names.items():
            shutil.copy(self.folder / f"{name}.txt", self.folder / f"part{number}.txt")
        script = (f"'{self.program.path}' tokenize part{rank}.txt --output part{rank}.tokens && "
                  f"'{self.program.path}' inspect part{rank}.tokens")
        code, output, _ = self.shell(script)
        assert code == 0, output
        for number, name in names.items():
            own = (self.folder / f"part{number}.tokens").read_bytes()
            assert own == (self.folder / f"{name}.tokens").read_bytes(), f"rank {number}'s shard"
            assert f"part{number}.tokens: token file, sound" in output, output
        for command in ("--version", f"config {self.config}"):
            code, output, _ = self.shell(f"'{self.program.path}' {command}")
            told = output.count("adagate ") if command == "--version" else output.count("seed: 7")
            assert code == 0 and told == 2, output

    def one_output_of_two_ranks(self):
        rank = "$OMPI_COMM_WORLD_RANK"
        script = f"sleep $((2*{rank})); '{self.program.path}' tokenize {{}} --output all.tokens"
        code, output, _ = self.shell(script.format("text.txt"))
        assert code == 0, output  # the same work twice does no harm
        (self.folder / "all.tokens").unlink()
        code, output, _ = self.shell(script.format(f"part{rank}.txt"))
        assert code != 0 and "all.tokens: is there already, with other tokens" in output, output
        kept = (self.folder / "all.tokens").read_bytes()
        assert kept == (self.folder / "text.tokens").read_bytes(), "the first shard is gone"

    def shell(self, script):
        command = [MPIRUN, "-n", "2", "sh", "-c", script]
        return finish(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                       text=True, env=environment(), start_new_session=True,
                                       cwd=self.folder))

    def cache_not_writable(self):
        blocked = self.folder / "blocked"
        blocked.mkdir()
        (blocked / f"adagate-cache-{os.getuid()}").write_text("a file where the folder goes")
        env = dict(environment(), TMPDIR=str(blocked))
        command = [self.program.path, "evaluate", str(self.trained), "--data",
                   str(self.folder / "text.txt")]
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        assert done.returncode != 0, done.stdout
        assert "the tokens of" in done.stderr and "set TMPDIR" in done.stderr, done.stderr
        assert "error: --data" not in done.stderr and "data.train" not in done.stderr, done.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    arguments = parser.parse_args()
    require_mpirun()
    program, report = Program(arguments.program), Report()
    with Scratch(3400) as scratch:
        ranks = Ranks(scratch, program)
        for what, words, first, second, how in ranks.differ():
            report.case(f"another: {what}", lambda: ranks.refuse(words, first, second, **how))
        report.case("what may differ trains", ranks.may_differ)
        report.case("every rank of tokenize, inspect, config works", ranks.every_rank_works)
        report.case("one output of two ranks", ranks.one_output_of_two_ranks)
        report.case("a cache that can't be written", ranks.cache_not_writable)
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
