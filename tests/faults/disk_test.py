#!/usr/bin/env python3
"""Checkpoints that can't be written: disk_test.py PROGRAM

A file limit, a full disk (a small tmpfs) and a directory that becomes read-only while a run on two
ranks saves. Each must end the run with one message that names file and remedy, leave the
checkpoints that were there intact and nothing half-written, and once there is room the run goes on
exactly. The last two need the right to mount, or a user who is not root; else they are skipped.
"""
import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys

from harness import (Program, Report, Scratch, checkpoints, children, finish, metrics,
                     read_checkpoint, require_mpirun, wait_for)

STEPS = 25


def mount(*arguments):
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode == 0


class Mounts:
    """File systems of a test, gone at its end."""

    def __init__(self):
        self.points = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for point in reversed(self.points):
            subprocess.run(["umount", "-l", str(point)], capture_output=True)

    def tmpfs(self, point, size):
        point.mkdir(parents=True)
        done = mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", point)
        self.points += [point] * done
        return done

    def read_only(self, point):
        done = mount("--bind", point, point)
        self.points += [point] * done
        return done and mount("-o", "remount,bind,ro", point)


def can_mount():
    if os.geteuid() != 0 or not shutil.which("mount"):
        return False
    with Scratch(100) as scratch, Mounts() as mounts:
        return mounts.tmpfs(scratch.path / "try", "64k")


def interrupted(program, scratch, spoil, words, mend=lambda run: None):
    """Spoils the saving of a run after its first checkpoint; mends it, and compares the end."""
    whole = scratch.config("whole", expert=2, length=f"{STEPS}s", width=64)
    program.train(2, whole)
    config = scratch.config("spoilt", expert=2, length=f"{STEPS}s", width=64, every="5s", keep=3)
    run = scratch.path / "spoilt"
    process = program.start(2, "train", config)
    wait_for(lambda: checkpoints(run), "first checkpoint", process)
    # Still, so that a slow machine spoils the same as a fast one.
    ranks = children(process.pid)
    for rank in ranks:
        os.kill(rank, signal.SIGSTOP)
    before = {step: read_checkpoint(path)[0] for step, path in checkpoints(run).items()}
    spoil(run, ranks)
    for rank in ranks:
        os.kill(rank, signal.SIGCONT)
    code, output, _ = finish(process, 60)
    errors = [line for line in output.splitlines() if ": error: " in line]
    assert code != 0, f"ended with 0:\n{output}"
    assert len(errors) == 1, f"{len(errors)} messages:\n{output}"
    missing = [word for word in words if word not in errors[0]]
    assert not missing, f"the message lacks {missing}: {errors[0]}"
    mend(run)
    after = checkpoints(run)
    for step, tensors in before.items():
        assert step in after, f"the checkpoint of step {step} is gone"
        assert read_checkpoint(after[step])[0] == tensors, f"step {step} has changed"
    half = [p.name for p in (run / "checkpoints").iterdir() if p.name.startswith(".")]
    assert not half, f"left behind: {half}"

    program.train(2, config, "--resume=auto")
    assert metrics(scratch.path / "whole") == metrics(run), "the figures differ"
    reference, _ = read_checkpoint(checkpoints(scratch.path / "whole")[STEPS])
    assert reference == read_checkpoint(checkpoints(run)[STEPS])[0], "the last checkpoints differ"
    return errors[0]


def file_limit(program):
    with Scratch(3400) as scratch:
        def spoil(_, ranks):
            for rank in ranks:
                resource.prlimit(rank, resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))
        return interrupted(program, scratch, spoil, ["was not saved", "shard-0000", "ulimit -f"])


def full_disk(program):
    with Scratch(3400) as scratch, Mounts() as mounts:
        disk = scratch.path / "spoilt"
        assert mounts.tmpfs(disk, "64m")

        def resize(free):
            used = subprocess.run(["du", "-sk", str(disk)], capture_output=True, text=True)
            kilobytes = int(used.stdout.split()[0]) + free
            assert mount("-o", f"remount,size={kilobytes}k", disk)
        return interrupted(program, scratch, lambda *_: resize(1024),
                           ["was not saved", "shard-0000", "the disk is full"],
                           lambda _: resize(65536))


def read_only_directory(program):
    with Scratch(3400) as scratch, Mounts() as mounts:
        def spoil(run, _):
            if os.geteuid() == 0:
                assert mounts.read_only(run / "checkpoints")
            else:
                (run / "checkpoints").chmod(0o555)

        def mend(run):
            if os.geteuid() == 0:
                mounts.__exit__()
            else:
                (run / "checkpoints").chmod(0o755)
        return interrupted(program, scratch, spoil,
                           ["was not saved", "spoilt/checkpoints", "choose another directory"],
                           mend)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    arguments = parser.parse_args()
    require_mpirun()
    program, report = Program(arguments.program), Report()
    report.case("file limit", file_limit, program)
    mounts = can_mount()
    if mounts:
        report.case("full disk", full_disk, program)
    else:
        print("skipped: full disk (needs the right to mount a tmpfs)")
    if mounts or os.geteuid() != 0:
        report.case("read-only directory", read_only_directory, program)
    else:
        print("skipped: read-only directory (root needs the right to mount)")
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
