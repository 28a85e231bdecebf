"""Steps of a check on a GPU machine: each under a time limit of its own, recorded as it ends.

OUT/report.json holds what is known of the machine and one record per step; OUT/PART.log what all
commands printed. A step is a function that gets a Commands, runs what it must, and returns figures;
it raises Skip where the machine or the build lacks something, Failed where a result is wrong.
"""

import contextlib
import datetime
import json
import os
import shlex
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path


class Skip(Exception):
    """The step can't run here; the text says what is missing."""


class Failed(Exception):
    """The step ran, and its result is wrong; figures: what it measured all the same."""

    def __init__(self, text, figures=None):
        super().__init__(text)
        self.figures = figures or {}


class OutOfTime(Failed):
    """A command ran past the step's limit."""


@dataclass(frozen=True)
class Step:
    name: str
    seconds: float  # at most; and no less must be left of the part's time than `least`
    run: object  # function of a Commands
    least: float = 3.0
    required: bool = False  # nothing after it makes sense when it fails


class Commands:
    """Runs commands one after the other until `deadline`, and keeps what they were and printed."""

    _running = {}  # process groups of all Commands, to be ended with the program
    _lock = threading.Lock()

    def __init__(self, seconds, environment=None):
        self.deadline = time.monotonic() + seconds
        self.environment = environment or dict(os.environ)
        self.lines, self.log = [], []
        self.code = None  # of the latest command

    def left(self):
        return self.deadline - time.monotonic()

    def call(self, argv, environment=None, seconds=None, codes=(0,)):
        """Standard output of a command, which must end with one of `codes`."""
        argv = [str(word) for word in argv]
        self.lines.append(shlex.join(argv))
        limit = max(0.1, min(self.left(), seconds or self.left()))
        process = subprocess.Popen(argv, env={**self.environment, **(environment or {})},
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, errors="replace",
                                   start_new_session=True)
        with self._lock:
            self._running[process.pid] = process
        try:
            output, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            output, errors = self._end(process)
            self._note(output, errors)
            raise OutOfTime(f"ran past {limit:.0f} s: {shorten(self.lines[-1])}") from None
        finally:
            with self._lock:
                self._running.pop(process.pid, None)
        self._note(output, errors)
        self.code = process.returncode
        if self.code not in codes:
            last = [line for line in (errors or output).splitlines() if line.strip()][-3:]
            raise Failed(f"{Path(argv[0]).name} ended with {self.code}: "
                         f"{' / '.join(last) or 'no message'}")
        return output

    def _note(self, output, errors):
        self.log.append(f"$ {self.lines[-1]}\n{output}{errors}")

    @staticmethod
    def _end(process):
        """Ends a command with all that it started; what it had printed."""
        for number, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 3)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=patience)
        return "", ""  # a descendant that left the group holds the pipes

    @classmethod
    def end_all(cls):
        with cls._lock:
            groups = list(cls._running)
        for group in groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


def shorten(text, most=160):
    return text if len(text) <= most else text[:most - 3] + "..."


class Report:
    """OUT/report.json, whole on the disk after every change. Both parts share it."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / "report.json"
        self.values = {"format": 1, "machine": {}, "records": []}
        if self.path.exists():
            self.values = json.loads(self.path.read_text())
        self._lock = threading.Lock()

    def note(self, **facts):
        with self._lock:
            self.values["machine"].update(facts)
            self._write()

    def start_part(self, part):
        """Forgets an earlier run of this part."""
        with self._lock:
            self.values["records"] = [r for r in self.values["records"] if r["part"] != part]
            self._write()
        (self.folder / f"{part}.log").write_text("")

    def add(self, record, log):
        with self._lock:
            with open(self.folder / f"{record['part']}.log", "a", encoding="utf-8") as file:
                file.write(f"===== {record['name']}: {record['outcome']}\n{log}\n")
            self.values["records"].append(record)
            self._write()

    def _write(self):
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(self.values, indent=1) + "\n")
        os.replace(beside, self.path)


class Runner:
    """The steps of one part, within `minutes` in all."""

    def __init__(self, part, report, minutes, wanted=lambda name: True, patience=1.0):
        self.part, self.report, self.wanted, self.patience = part, report, wanted, patience
        self.deadline = time.monotonic() + 60 * minutes
        self.beside = []  # (step's name, thread)
        self.outcomes = []
        self.ended = None  # why no further step makes sense
        report.start_part(part)
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, number, frame):
        Commands.end_all()
        raise SystemExit(128 + number)

    def left(self):
        return self.deadline - time.monotonic()

    def run(self, step):
        """True if it passed."""
        if not self.wanted(step.name) and not step.required:
            return False
        if self.ended:
            return self._record(step, "skipped", 0, None, {}, self.ended)
        if self.left() < step.least:
            return self._record(step, "skipped", 0, None, {},
                                f"{self.left():.0f} s of the part's time were left: --minutes")
        outcome = self._attempt(step)
        if step.required and outcome != "passed":
            self.ended = f"'{step.name}' did not pass"
        return outcome == "passed"

    def start(self, step):
        """Runs it beside the following steps, until finish()."""
        if self.ended or not self.wanted(step.name):
            return
        thread = threading.Thread(target=self.run, args=(step,), daemon=True)
        self.beside.append(thread)
        thread.start()

    def finish(self):
        """True if nothing failed."""
        for thread in self.beside:
            thread.join()
        count = {kind: self.outcomes.count(kind) for kind in ("passed", "failed", "skipped")}
        print(f"{self.part}: {count['passed']} passed, {count['failed']} failed, "
              f"{count['skipped']} skipped", flush=True)
        return count["failed"] == 0

    def _attempt(self, step):
        commands = Commands(min(step.seconds * self.patience, self.left()))
        start, figures, reason = time.monotonic(), {}, ""
        try:
            figures = step.run(commands) or {}
            outcome = "passed"
        except Skip as missing:
            outcome, reason = "skipped", str(missing)
        except Failed as wrong:
            outcome, reason, figures = "failed", str(wrong), wrong.figures
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            outcome, reason = "failed", f"{type(error).__name__}: {error}"
        self._record(step, outcome, time.monotonic() - start, commands, figures, reason)
        return outcome

    def _record(self, step, outcome, seconds, commands, figures, reason):
        record = {"part": self.part, "name": step.name, "outcome": outcome,
                  "seconds": round(seconds, 2), "limit_seconds": step.seconds * self.patience,
                  "reason": reason, "rc": commands.code if commands else None, "figures": figures,
                  "commands": commands.lines if commands else [], "log": f"{self.part}.log",
                  "at": datetime.datetime.now(datetime.timezone.utc).isoformat("T", "seconds")}
        self.report.add(record, "\n".join(commands.log) if commands else "")
        self.outcomes.append(outcome)
        print(f"{outcome:<8} {seconds:6.1f} s  {step.name}{': ' if reason else ''}"
              f"{shorten(reason)}", flush=True)
        return False
