#!/usr/bin/env python3
"""The progress line as a person at a terminal sees it, on pseudo-terminals: within its width, a few
times a second, and never what keeps a run from ending.

usage: terminal_test.py ADAGATE"""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import harness
from harness import Program, Report, Scratch

RENEWED = re.compile(rb"\r\x1b\[K([^\r\n]*)")


class Screen:
    """A pseudo-terminal with a program on it."""

    def __init__(self, command, columns, **variables):
        self.master, slave = pty.openpty()
        self.resize(columns)
        environment = {**harness.environment(), "TERM": "xterm", **variables}
        for name in ("NO_COLOR", "CI", "COLUMNS"):
            if name not in variables:
                environment.pop(name, None)
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave,
                                        env=environment, start_new_session=True)
        os.close(slave)
        self.text = b""

    def resize(self, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))

    def read(self, seconds):
        """What comes within that time; less when the program closes the terminal."""
        begin, end = len(self.text), time.monotonic() + seconds
        while time.monotonic() < end:
            if not select.select([self.master], [], [], 0.02)[0]:
                continue
            try:
                self.text += os.read(self.master, 65536)
            except OSError:  # how Linux tells the end of a terminal
                break
        return self.text[begin:]

    def read_until(self, pattern, timeout=60):
        end = time.monotonic() + timeout
        while not re.search(pattern, self.text):
            self.read(0.05)
            if time.monotonic() > end:
                raise AssertionError(f"no {pattern} within {timeout} s:\n{self.text[-3000:]}")

    def finish(self, timeout=60, reading=True):
        end = time.monotonic() + timeout
        while self.process.poll() is None:
            self.read(0.05) if reading else time.sleep(0.05)
            if time.monotonic() > end:
                harness.end_group(self.process)
                raise AssertionError(f"still running after {timeout} s:\n{self.text[-3000:]}")
        self.read(0.2)
        os.close(self.master)
        return self.process.returncode


def with_set(*settings):
    return [word for setting in settings for word in ("--set", setting)]


def renewed(text):
    # Lines that stay come after an erased one, too.
    return [line.rstrip() for line in RENEWED.findall(text)
            if re.match(rb"step +\d+/", line) and b"SKIPPED" not in line]


def test_width_and_rate(program, scratch, ranks):
    config = scratch.config(f"width-{ranks}", width=8, length="1000000s")
    screen = Screen(program.command(ranks, "train", config), 80)
    screen.read_until(RENEWED.pattern + rb"step")
    screen.read(0.5)
    lines = renewed(screen.read(2))
    if not 5 <= len(lines) <= 11:
        raise AssertionError(f"{len(lines)} lines in 2 s")
    longest = max(map(len, lines))
    if not 60 <= longest <= 79:
        raise AssertionError(f"{longest} columns of 80: {lines}")
    if not all(re.search(rb"loss .*ETA \d+:\d\d:\d\d$", line) for line in lines):
        raise AssertionError(f"loss and ETA: {lines}")
    screen.resize(30)
    screen.read(0.5)
    narrow = renewed(screen.read(1))
    if not narrow or max(map(len, narrow)) > 29:
        raise AssertionError(f"on 30 columns: {narrow}")
    os.kill(screen.process.pid, signal.SIGUSR1)
    if screen.finish() != 0 or b"stopped by a signal" not in screen.text:
        raise AssertionError(f"end: {screen.text[-2000:]}")
    return f"{len(lines)} lines in 2 s, {longest} columns"


def test_columns_without_a_size(program, scratch):
    config = scratch.config("columns", width=8, length="300s")
    for columns, most in (("50", 49), ("", 79)):
        screen = Screen(program.command(0, "train", config, "--overwrite"), 0, COLUMNS=columns)
        if screen.finish() != 0:
            raise AssertionError(screen.text)
        longest = max(map(len, renewed(screen.text)))
        if not most - 30 <= longest <= most:
            raise AssertionError(f"COLUMNS={columns}: {longest} columns")


def test_plain(program, scratch, **variables):
    config = scratch.config("plain", width=8, length="30s")
    screen = Screen(program.command(1, "train", config, "--overwrite"), 80, **variables)
    if screen.finish() != 0 or b"\x1b" in screen.text or b"step      1/30" not in screen.text:
        raise AssertionError(f"{variables}: {screen.text}")


def test_ctrl_c(program, scratch, ranks, attempt):
    """mpirun reads no more of what its ranks write once it has got the signal."""
    name = f"ctrl-c-{ranks}-{attempt}"
    config = scratch.config(name, width=8, length="1000000s")
    screen = Screen(program.command(ranks, "train", config), 80)
    screen.read_until(rb"step +\d\d+/")
    screen.read(0.3 * attempt)
    os.kill(screen.process.pid, signal.SIGINT)
    screen.finish()
    if not harness.checkpoints(scratch.path / name):
        raise AssertionError(f"nothing is saved:\n{screen.text[-2000:]}")


def test_nobody_reads(program, scratch):
    config = scratch.config("unread", width=8, length="1000000s")
    # Each evaluation has a line that stays: the terminal is soon full.
    settings = ("data.validation_share=0.1", "train.evaluate_every=1s", "train.evaluate_samples=1")
    screen = Screen(program.command(0, "train", config, *with_set(*settings)), 80)
    screen.read_until(rb"validation loss")
    steps, end = [0], time.monotonic() + 60
    while len(steps) < 5 or steps[-1] > steps[-5]:  # until the run waits for the reader
        time.sleep(0.2)
        steps.append(harness.last_step(scratch.path / "unread"))
        if time.monotonic() > end:
            raise AssertionError(f"not full after {steps[-1]} lines")
    os.kill(screen.process.pid, signal.SIGTERM)
    start = time.monotonic()
    if screen.finish(30, reading=False) != 0:
        raise AssertionError(f"ended with {screen.process.returncode}")
    if not harness.checkpoints(scratch.path / "unread"):
        raise AssertionError("nothing is saved")
    return f"saved within {time.monotonic() - start:.1f} s"


def main():
    harness.require_mpirun()
    program, report = Program(sys.argv[1]), Report()
    with Scratch(20_000) as scratch:
        for ranks in (0, 2):
            report.case(f"width and rate on {ranks} ranks", test_width_and_rate, program, scratch,
                        ranks)
        report.case("a terminal without a size", test_columns_without_a_size, program, scratch)
        for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}, {"CI": "true"}):
            report.case(f"plain lines with {variables}",
                        lambda v: test_plain(program, scratch, **v), variables)
        for attempt in range(3 if harness.FULL else 1):
            report.case("Ctrl-C under mpirun saves", test_ctrl_c, program, scratch, 2, attempt)
        report.case("a full terminal keeps no run from saving", test_nobody_reads, program, scratch)
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
