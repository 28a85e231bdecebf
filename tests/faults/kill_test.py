#!/usr/bin/env python3
"""Ranks killed at random moments: kill_test.py PROGRAM [--kills N] [--seed S]

A run on two ranks, expert parallel, saves every few steps and is started again and again with
--resume=auto; each time a random rank gets SIGKILL at a random moment: while the program starts, in
any part of a step, while a checkpoint is written. mpirun must end non-zero within 30 s and take the
other rank along, no half-written checkpoint may be picked up, and in the end the figures of every
step and the last checkpoint equal those of a run that nobody killed.
"""
import argparse
import json
import os
import random
import shutil
import signal
import sys
import time

from harness import (FULL, Program, Report, Scratch, checkpoints, children, end_group, finish,
                     is_alive, last_step, metrics, read_checkpoint, require_mpirun)

STEPS = 60
BOUND = 30.0  # seconds from the kill to the end of mpirun


def is_saving(run):
    return any((run / "checkpoints").glob(".step-*.tmp"))


def check_complete(run):
    """Every directory that counts as a checkpoint is whole."""
    for step, path in checkpoints(run).items():
        manifest = json.loads((path / "manifest.json").read_text())
        assert manifest["step"] == step, f"{path} holds step {manifest['step']}"
        for shard in manifest["shards"]:
            size = (path / shard["file"]).stat().st_size
            assert size == shard["bytes"], f"{path / shard['file']} has {size} bytes"


class Killer:
    def __init__(self, program, scratch, seed):
        self.program, self.random = program, random.Random(seed)
        self.config = scratch.config("killed", expert=2, length=f"{STEPS}s", every="3s", width=64)
        self.run = scratch.path / "killed"
        self.moments = {"starting": 0, "training": 0, "saving": 0}
        self.slowest = 0.0
        self.resumed = set()  # steps that launches went on from

    def wait_for_moment(self, process, moment, step_seconds):
        """Returns when it is time to kill; False when the run ended before."""
        delay = {"starting": self.random.uniform(0.0, 0.6),
                 "training": self.random.uniform(0.0, 12 * step_seconds),
                 "saving": self.random.uniform(0.0, 0.004)}[moment]
        begun = last_step(self.run) if moment == "training" else 0
        due = time.monotonic() + delay if moment == "starting" else None
        limit = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < limit:
            if due is None and (is_saving(self.run) if moment == "saving"
                                else last_step(self.run) > begun):
                due = time.monotonic() + delay
            if due is not None and time.monotonic() >= due and len(children(process.pid)) == 2:
                return True
            time.sleep(0.0005 if moment == "saving" else 0.002)
        return False

    def kill_once(self, number, step_seconds):
        """One launch with a kill. True when there was one, False when the run was faster."""
        moment = self.random.choice(("starting", "training", "training", "saving"))
        process = self.program.start(2, "train", self.config, "--resume=auto")
        if not self.wait_for_moment(process, moment, step_seconds):
            code, output, _ = finish(process)
            assert code == 0, f"kill {number}: ended with {code} before it was killed:\n{output}"
            return False
        ranks = children(process.pid)
        victim = self.random.randrange(len(ranks))
        at = "saving" if is_saving(self.run) else moment
        where = f"kill {number} (rank {victim}, {at}, step {last_step(self.run)})"
        killed = time.monotonic()
        try:
            os.kill(ranks[victim], signal.SIGKILL)
        except ProcessLookupError:
            return self.kill_once(number, step_seconds)  # it had just ended by itself
        try:
            code, output, _ = finish(process, BOUND)
        finally:
            end_group(process)
        took = time.monotonic() - killed
        self.slowest = max(self.slowest, took)
        assert code != 0, f"{where}: mpirun ended with 0:\n{output}"
        wait_end = time.monotonic() + BOUND - took
        while any(map(is_alive, ranks)) and time.monotonic() < wait_end:
            time.sleep(0.01)
        assert not any(map(is_alive, ranks)), f"{where}: the other rank lives on"
        assert took < BOUND, f"{where}: mpirun took {took:.1f} s to end"
        check_complete(self.run)
        self.moments[at] += 1
        self.resumed.add(max(checkpoints(self.run), default=0))
        print(f"     {where}: exit code {code} after {took:.2f} s, checkpoints "
              f"{sorted(checkpoints(self.run))}", flush=True)
        return True

    def finish_run(self, reference):
        """Lets the run end and compares it; the folder is then free for the next one."""
        self.program.train(2, self.config, "--resume=auto")
        expected, found = metrics(reference), metrics(self.run)
        assert sorted(found) == list(range(1, STEPS + 1)), f"steps {sorted(found)}"
        different = [step for step in expected if expected[step] != found[step]]
        assert not different, f"the figures of steps {different} differ"
        tensors, _ = read_checkpoint(checkpoints(reference)[STEPS])
        other, _ = read_checkpoint(checkpoints(self.run)[STEPS])
        assert tensors == other, "the last checkpoints differ"
        leftovers = [p.name for p in (self.run / "checkpoints").iterdir()
                     if p.name.startswith(".") or not (p / "manifest.json").exists()]
        assert not leftovers, f"left behind: {leftovers}"
        shutil.rmtree(self.run)


def kill_many(program, kills, seed):
    with Scratch(3400) as scratch:
        reference = scratch.config("reference", expert=2, length=f"{STEPS}s", width=64)
        start = time.monotonic()
        program.train(2, reference)
        step_seconds = (time.monotonic() - start) / STEPS
        killer = Killer(program, scratch, seed)
        runs, number = 0, 0
        while number < kills:
            if killer.kill_once(number + 1, step_seconds):
                number += 1
            else:
                killer.finish_run(scratch.path / "reference")
                runs += 1
        killer.finish_run(scratch.path / "reference")
        moments = ", ".join(f"{count} {moment}" for moment, count in killer.moments.items())
        return (f"{kills} kills ({moments}), {runs + 1} runs completed exactly, went on from "
                f"{len(killer.resumed)} steps, mpirun ended within {killer.slowest:.1f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--kills", type=int, default=100 if FULL else 4)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    require_mpirun()
    report = Report()
    report.case("killed at random moments", kill_many, Program(arguments.program),
                arguments.kills, arguments.seed)
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
