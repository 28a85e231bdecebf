#!/usr/bin/env python3
"""Runs of one rank without a launcher that are stopped: stop_test.py PROGRAM

Signals, also a second one, ignored ones, and those that come before the first step or in an
evaluation; a standard output that is closed, full, or read no further. Whatever was trained is
saved, and what had not begun leaves nothing.
"""
import argparse
import os
import signal
import subprocess
import sys
import time

from harness import (Program, Report, Scratch, checkpoints, environment, last_step, read_checkpoint,
                     wait_for)

TEXT = 3400
NOTICE = "Ctrl-C again ends at once"


class Run:
    """A run that would last for hours, in a scratch folder of its own."""

    def __init__(self, program, *options, ignored=(), text_bytes=TEXT, width=32, stdout=None):
        self.scratch = Scratch(text_bytes)
        config = self.scratch.config("run", length="1000000s", width=width)
        self.path = self.scratch.path / "run"
        self.log = open(self.scratch.path / "log", "w+")

        def dispositions():  # whatever those of the test itself are
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

        command = program.command(0, "train", config)
        for option in options:
            command += ["--set", option.format(scratch=self.scratch.path)]
        self.process = subprocess.Popen(command, stdout=stdout or self.log, stderr=self.log,
                                        env=environment(), preexec_fn=dispositions)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.scratch.__exit__()

    def output(self):
        self.log.flush()
        return (self.scratch.path / "log").read_text()

    def wait_for_step(self, step):
        wait_for(lambda: last_step(self.path) >= step or self.process.poll() is not None,
                 f"step {step}")

    def end(self, status, seconds=60):
        start = time.monotonic()
        code = self.process.wait(timeout=120)
        took = time.monotonic() - start
        assert code == status, f"status {code} instead of {status}:\n{self.output()}"
        assert took < seconds, f"took {took:.1f} s to end"

    def saved(self):
        """The one checkpoint's step; nothing half-written lies beside it."""
        names = sorted(path.name for path in (self.path / "checkpoints").iterdir())
        steps = checkpoints(self.path)
        assert len(steps) == len(names) == 1, f"{names}:\n{self.output()}"
        return max(steps)


def saves(program, number):
    with Run(program) as run:
        run.wait_for_step(3)
        run.process.send_signal(number)
        run.end(0)
        step = run.saved()
        assert step == last_step(run.path), f"{step} saved of {last_step(run.path)}"
        told = NOTICE in run.output()
        assert told == (number == signal.SIGINT), run.output()
        return f"step {step}"


def second_interrupt(program):
    """In a step that takes half a minute on one core: all of the text, nine samples at a time."""
    with Run(program, "train.batch=9000", "train.accumulation=1000", text_bytes=290_000,
             width=128) as run:
        wait_for(lambda: (run.path / "metrics.jsonl").exists(), "start", timeout=60)
        time.sleep(0.3)
        run.process.send_signal(signal.SIGINT)
        wait_for(lambda: NOTICE in run.output(), "notice", timeout=10)
        time.sleep(0.2)
        assert run.process.poll() is None, "the step was too short"
        run.process.send_signal(signal.SIGTERM)  # changes nothing
        time.sleep(0.1)
        assert run.process.poll() is None, "ended by a SIGTERM after the first signal"
        run.process.send_signal(signal.SIGINT)
        run.end(130, seconds=1)
        assert not (run.path / "checkpoints").exists(), run.output()


def stays_ignored(program, number):
    with Run(program, ignored=(number,)) as run:
        run.wait_for_step(3)
        run.process.send_signal(number)
        run.wait_for_step(last_step(run.path) + 50)
        assert run.process.poll() is None, f"ended:\n{run.output()}"
        run.process.send_signal(signal.SIGTERM)
        run.end(0)


def before_first_step(program):
    """While a long text is tokenized: nothing is left."""
    with Scratch(300_000) as scratch:
        long = scratch.path / "long.txt"
        with open(long, "wb") as file:
            for _ in range(600):
                file.write((scratch.path / "text.txt").read_bytes())
        with Run(program, f"data.train={long}") as run:
            wait_for(lambda: list(run.path.glob("cache/*.tmp-*")), "tokenizing", timeout=60,
                     poll=0.0005)
            run.process.send_signal(signal.SIGINT)
            run.end(130)
            assert not run.path.exists(), sorted(run.path.rglob("*"))
            assert "stopped by a signal before the first step" in run.output()


def in_evaluation(program):
    """One that would take minutes; it is left to the run that goes on."""
    with Run(program, "data.validation={scratch}/text.txt", "train.evaluate_every=1s",
             text_bytes=290_000, width=256) as run:
        wait_for(lambda: last_step(run.path) == 1, "step 1", timeout=60)
        time.sleep(0.2)
        assert "validation loss" not in run.output(), "the evaluation was too short"
        run.process.send_signal(signal.SIGINT)
        run.end(0, seconds=3)
        _, manifest = read_checkpoint(checkpoints(run.path)[1])
        assert manifest["extra"]["evaluation_due"] == "1"
        assert "validation loss" not in run.output()


def reader_goes(program):
    """As with `train | head`: it saves, says so in one line, and ends with an error."""
    reading, writing = os.pipe()
    with Run(program, "train.log_every=1", stdout=writing) as run:
        os.close(writing)
        run.wait_for_step(3)
        os.close(reading)
        run.end(1)
        assert run.saved() >= 3
        errors = [line for line in run.output().splitlines() if "error" in line]
        assert len(errors) == 1 and "cannot write to standard output: Broken pipe; step" in \
            errors[0] and "--resume=auto" in errors[0], run.output()


def no_reader_at_all(program, redirection, cause):
    with Scratch(TEXT) as scratch:
        config = scratch.config("run")
        code = subprocess.run(f"exec 2>{scratch.path}/log; {program.path} train {config} "
                              f"{redirection}; exit ${{PIPESTATUS[0]}}", shell=True,
                              executable="/bin/bash", env=environment(), check=False).returncode
        output = (scratch.path / "log").read_text()
        assert code == 1 and cause in output, f"{code}:\n{output}"
        assert not (scratch.path / "run").exists()


def goes_on_without_output(program):
    with Scratch(TEXT) as scratch, open("/dev/full", "w") as full:
        config = scratch.config("run")
        done = subprocess.run(program.command(0, "train", config), stdout=full, env=environment(),
                              stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("No space left on device; the run goes on") == 1, done.stderr
        assert max(checkpoints(scratch.path / "run")) == 40


def closed_streams(program):
    """Files of the run don't take the places of standard streams."""
    with Scratch(TEXT) as scratch:
        config = scratch.config("run")
        code = subprocess.run(f"{program.path} train {config} <&- 2>&- >/dev/null", shell=True,
                              env=environment(), check=False).returncode
        assert code == 0
        lines = (scratch.path / "run/metrics.jsonl").read_text().splitlines()
        assert all(line.startswith('{"step"') for line in lines)
        assert sum('"type":"step"' in line for line in lines) == 40


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    program, report = Program(parser.parse_args().program), Report()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
        report.case(f"{number.name} saves", saves, program, number)
    report.case("a second Ctrl-C ends at once", second_interrupt, program)
    for number in (signal.SIGHUP, signal.SIGINT):
        report.case(f"an ignored {number.name} stays so", stays_ignored, program, number)
    report.case("Ctrl-C before the first step", before_first_step, program)
    report.case("Ctrl-C in an evaluation", in_evaluation, program)
    report.case("the reader of the output goes", reader_goes, program)
    for redirection, cause in ((">&-", "Bad file descriptor"), ("| true", "Broken pipe")):
        report.case(f"an output of {redirection}", no_reader_at_all, program, redirection, cause)
    report.case("a full output", goes_on_without_output, program)
    report.case("closed input and error", closed_streams, program)
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
