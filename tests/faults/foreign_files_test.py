#!/usr/bin/env python3
"""Nothing that isn't adagate's own changes: foreign_files_test.py PROGRAM

A run's output is full of what users keep there: copies of checkpoints, notes, links, hard links,
other runs beside it. Every command and every kind of failure is tried in it; names, types,
contents, link targets and times of all that adagate didn't write must be as before.
"""
import argparse
import os
import re
import resource
import shutil
import signal
import sys
from pathlib import Path

from harness import Program, Report, Scratch, checkpoints, finish, last_step, wait_for

STEP = r"step-\d{8,}"
OWN = re.compile(
    r"((config\.yaml|metrics\.jsonl)(\.tmp-\d+)?|config-until-\d{8,}\.yaml|checkpoints|cache"
    r"|cache/[^/]+-[0-9a-f]{16}-[0-9a-f]{16}\.tokens"
    rf"|checkpoints/\.{STEP}\.tmp(/.*)?"
    rf"|checkpoints/{STEP}(/manifest\.json|/shard-\d{{5,}}-of-\d{{5,}}\.safetensors)?)")
CONFIG = """
output: {output}
data: {{tokenizer: byte, train: {text}, validation_share: 0.1}}
model: {{preset: modern, layers: 1, width: 16, heads: 2, context: 16}}
parallel: {{threads: 1}}
train: {{length: 4s, batch: 4, evaluate_every: 0s, optimizer: {{learning_rate: 0.001}},
        schedule: {{warmup: 0s, decay: constant}}}}
checkpoint: {{every: 2s, keep: 2}}
"""


def describe(path):
    """What must not change of a path."""
    info = path.lstat()
    if path.is_symlink():
        return "link", os.readlink(path), info.st_mtime_ns
    if path.is_dir():
        return ("directory",)  # its time changes with adagate's own files in it
    return "file", path.read_bytes(), info.st_mtime_ns, info.st_ino


class World:
    """The folder, and what of it is foreign to the run in `runs/b`."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.run = folder / "runs/b"
        self.config = folder / "tiny.yaml"
        self.config.write_text(CONFIG.format(output=self.run, text=folder / "text.txt"))

    def adagate(self, *arguments, fails=False, **popen):
        code, output, _ = self.program.run(0, *arguments, timeout=120, **popen)
        assert (code != 0) == fails, f"{arguments} ended with {code}:\n{output}"
        assert "Signal:" not in output and "terminate called" not in output, output
        return output

    def train(self, *arguments, **how):
        return self.adagate("train", self.config, *arguments, **how)

    def fill(self):
        """Puts beside a run of four steps what a user may."""
        self.train("--output", self.folder / "runs/a")
        self.train()
        other, run = self.folder / "runs/a/checkpoints", self.run
        shutil.copytree(run / "checkpoints/step-00000002", run / "checkpoints/step-00000002-best")
        shutil.copytree(run / "checkpoints/step-00000004", run / "checkpoints/step-best")
        for name in ("checkpoints/step-notes/README", "checkpoints/.step-notes/README",
                     "checkpoints/step-2/README",
                     "checkpoints/.step-00000002.tmp.bak/manifest.json",
                     "checkpoints/step-00000002/notes.txt", "checkpoints/step-00000004/plots/a.svg",
                     "checkpoints/step-00000001/mine.txt", "cache/mine.tokens", "notes.txt",
                     "config.yaml.bak", "metrics.jsonl.tmp-", "config.yaml.tmp-mine",
                     "checkpoints-old/step-00000002/manifest.json"):
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            (run / name).write_text(f"mine: {name}")
        os.link(other / "step-00000004/manifest.json", run / "checkpoints/hard-link.json")
        os.link(run / "checkpoints/step-00000002/manifest.json", run / "kept-manifest.json")
        os.link(run / "metrics.jsonl", run / "kept-metrics.jsonl")
        (run / "best").symlink_to("checkpoints/step-00000002-best")
        (run / "checkpoints/best").symlink_to("step-best")
        (run / "checkpoints/other").symlink_to(other / "step-00000004")
        (run / "dangling").symlink_to("nowhere")

    def foreign(self):
        return {name: describe(self.folder / name) for name in self.names() if not self.own(name)}

    def names(self):
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}

    def own(self, name):
        path = self.folder / name
        inside = path.is_relative_to(self.run) and path != self.run
        return inside and OWN.fullmatch(str(path.relative_to(self.run))) is not None

    def unchanged(self, what, action, new=()):
        """Runs an action; but for files in `new`, which it may make, nothing foreign changes."""
        before = self.foreign()
        detail = action()
        after = {name: value for name, value in self.foreign().items() if name not in new}
        for name in new:
            assert (self.folder / name).exists(), f"{what}: {name} is missing"
            (self.folder / name).unlink()
        changed = sorted(name for name in {*before, *after}
                         if before.get(name) != after.get(name))
        assert not changed, f"{what}: not as before: {changed}"
        return detail


def commands(world):
    folder, run, text = world.folder, world.run, world.folder / "text.txt"
    (folder / "mine.txt").write_text("not a token file")
    world.unchanged("train over a run", lambda: world.train(fails=True))
    world.unchanged("resume", lambda: world.train("--resume=auto", "--set", "train.length=9s"))
    assert set(checkpoints(run)) >= {8, 9} and 6 not in checkpoints(run), checkpoints(run)
    world.unchanged("go back", lambda: world.train(
        f"--resume={run}/checkpoints/step-00000008", "--overwrite", "--set", "train.length=10s"))
    world.unchanged("overwrite", lambda: world.train("--overwrite"))
    world.unchanged("overwrite and resave", lambda: world.train("--overwrite"))
    world.unchanged("dry run", lambda: world.train("--dry-run", "--overwrite"))
    world.unchanged("config", lambda: world.adagate("config", world.config))
    world.unchanged("evaluate", lambda: world.adagate("evaluate", run))
    world.unchanged("evaluate a copy",
                    lambda: world.adagate("evaluate", run / "checkpoints/step-00000002-best"))
    world.unchanged("generate", lambda: world.adagate("generate", run, "--tokens", 3))
    world.unchanged("inspect", lambda: world.adagate("inspect", next((run / "cache").glob("t*"))))
    new = ["new.tokens"]
    world.unchanged("tokenize", lambda: world.adagate("tokenize", text, "--output",
                                                      folder / new[0]), new)
    for name in ("mine.txt", "text.txt", "runs/b/notes.txt", "runs/b/best", "runs/b/dangling"):
        world.unchanged(f"tokenize over {name}", lambda name=name: world.adagate(
            "tokenize", text, "--output", folder / name, fails=True))
    world.unchanged("tokenize a missing text", lambda: world.adagate(
        "tokenize", text, folder / "gone.txt", "--output", folder / "new.tokens", fails=True))
    world.unchanged("bench over a file", lambda: world.adagate(
        "bench", "--section", "moe", "--json", folder / "mine.txt", fails=True))


def failures(world):
    folder, run = world.folder, world.run
    (folder / "sweep").mkdir()
    (folder / "sweep/notes.txt").write_text("mine")

    def late():
        return world.train("--output", folder / "sweep/x/y", "--set", "data.validation_share=0",
                           "--set", f"data.validation={folder}/typo.txt", fails=True)
    world.unchanged("missing validation", late)

    world.unchanged("wrong resume", lambda: world.train(
        f"--resume={folder}/runs/a/checkpoints/step-00000004", "--set", "model.width=32",
        "--overwrite", fails=True))

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    world.unchanged("file limit", lambda: world.train(
        "--resume=auto", "--set", "train.length=6s", fails=True, preexec_fn=limit))

    def stop(number, code):
        process = world.program.start(0, "train", world.config, "--resume=auto", "--set",
                                      "train.length=100000s")
        start = last_step(run)
        wait_for(lambda: last_step(run) > start + 3, "steps", process)
        os.kill(process.pid, number)
        ended, output, _ = finish(process, 60)
        assert ended == code, output
    world.unchanged("SIGTERM", lambda: stop(signal.SIGTERM, 0))
    world.unchanged("kill -9", lambda: stop(signal.SIGKILL, -9))
    step = max(checkpoints(run)) + 2
    world.unchanged("after a kill", lambda: world.train("--resume=auto", "--set",
                                                        f"train.length={step}s"))


def links(world):
    """Checkpoints, folders and outputs that are links."""
    folder = world.folder
    linked = folder / "linked"
    (linked / "checkpoints").mkdir(parents=True)
    (linked / "checkpoints/step-00000004").symlink_to("../../runs/a/checkpoints/step-00000004")
    world.run = linked
    world.unchanged("rotation of a link", lambda: world.train(
        "--output", linked, "--resume=auto", "--set", "train.length=12s"))
    assert set(checkpoints(linked)) == {10, 12}, checkpoints(linked)

    behind = folder / "behind"
    behind.mkdir()
    (behind / "checkpoints").symlink_to("../runs/a/checkpoints")
    world.run = folder / "none"
    for more in ([], ["--resume=auto", "--set", "train.length=12s"], ["--overwrite"]):
        output = world.unchanged("a linked folder", lambda more=more: world.train(
            "--output", behind, *more, fails=True))
        assert "symbolic link" in output, output

    here = folder / "here"
    here.mkdir()
    (here / "config.yaml").write_text("# mine\n" + CONFIG.format(output=here,
                                                                 text=folder / "text.txt"))
    for more in ([], ["--overwrite"], ["--resume=auto"]):
        output = world.unchanged("its own configuration", lambda more=more: world.adagate(
            "train", here / "config.yaml", *more, fails=True))
        assert "config.yaml is read by this run" in output, output
        world.unchanged("a configuration that is there", lambda more=more: world.train(
            "--output", here, *more, fails=True))


def diverged(world):
    world.run = world.folder / "diverged"
    base = ("--output", world.run, "--resume=auto", "--set", "checkpoint.every=5s")
    world.train(*base, "--set", "train.length=30s")
    if "--allow-change" in world.adagate("train", "--help"):
        base += ("--allow-change", "train.optimizer.learning_rate")
    output = world.unchanged("divergence", lambda: world.train(
        *base, "--set", "train.length=200s", "--set", "train.optimizer.learning_rate=1e30",
        fails=True))
    assert 30 in checkpoints(world.run), checkpoints(world.run)
    assert "diverged" in output and "checkpoints/step-00000030" in output, output


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    arguments = parser.parse_args()
    report = Report()
    with Scratch(3400) as scratch:
        world = World(Program(arguments.program), Path(scratch.path))
        report.case("a folder full of other files", world.fill)
        for case in (commands, failures, links, diverged):
            report.case(case.__name__, case, world)
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
