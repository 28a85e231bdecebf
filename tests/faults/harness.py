"""What the fault tests share: tiny runs of the built program under mpirun, in a scratch folder, and
readers of what the runs leave behind. Python's standard library alone."""
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
FULL = os.environ.get("ADAGATE_TEST_FULL", "0") == "1"
MPIRUN = shutil.which("mpirun")
# Figures of a step that depend on the clock or on the memory of the machine.
CLOCK_KEYS = {"timestamp", "elapsed_seconds", "seconds", "tokens_per_second", "gflops_per_second",
              "peak_share", "rank_time_imbalance", "waiting_seconds", "peak_memory_bytes", "time",
              "validation_seconds", "checkpoint_seconds"}

BASE = """
output: {output}
seed: 7
precision: {precision}
data: {{tokenizer: byte, train: {text}, prefetch: 2}}
model: {{preset: modern, layers: 2, width: {width}, heads: 2, context: 32, dropout: 0.1,
        attention_dropout: 0.1}}
moe:
  experts: 4
  gate: {{policy: adaptive, threshold: 0.02}}
  balance: {{loss: paper, coefficient: 0.01}}
parallel: {{expert: {expert}, threads: 1}}
train:
  length: {length}
  batch: 8
  accumulation: 2
  evaluate_every: 0s
  optimizer: {{learning_rate: 3.0e-3}}
  schedule: {{warmup: 5s, decay: constant}}  # the same for every length
checkpoint: {{every: {every}, keep: {keep}}}
"""


def environment():
    """Of the program: root may use mpirun, ranks that wait give their core away, the C locale."""
    env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
               OMPI_MCA_rmaps_base_oversubscribe="1", OMP_WAIT_POLICY="passive",
               OMP_NUM_THREADS="1", LC_ALL="C")
    env.pop("ADAGATE_MPI", None)
    return env


class Scratch:
    """A folder for the runs of one test, with the small text they train on."""

    def __init__(self, text_bytes):
        self.path = Path(tempfile.mkdtemp(prefix="adagate-faults-"))
        text = (REPO / "data/samples/shakespeare.txt").read_bytes()[:text_bytes]
        (self.path / "text.txt").write_bytes(text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if os.environ.get("ADAGATE_KEEP_SCRATCH"):
            print(f"kept: {self.path}")
        else:
            shutil.rmtree(self.path, ignore_errors=True)

    def config(self, name, *, expert=1, precision="fp32", length="40s", every="0s", keep=2,
               width=32):
        """Writes NAME.yaml, whose run goes to the folder NAME; returns the file's path."""
        file = self.path / f"{name}.yaml"
        file.write_text(BASE.format(output=self.path / name, text=self.path / "text.txt",
                                    expert=expert, precision=precision, length=length,
                                    every=every, keep=keep, width=width))
        return file


class Program:
    """The program under test."""

    def __init__(self, path):
        self.path = str(Path(path).resolve())

    def command(self, ranks, *args, mpirun_args=()):
        if ranks == 0:  # without a launcher
            return [self.path, *map(str, args)]
        return [MPIRUN, *mpirun_args, "-n", str(ranks), self.path, *map(str, args)]

    def start(self, ranks, *args, mpirun_args=(), **popen):
        return subprocess.Popen(self.command(ranks, *args, mpirun_args=mpirun_args),
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace",
                                env=environment(), start_new_session=True, **popen)

    def run(self, ranks, *args, timeout=300, **popen):
        """Runs to the end: exit code, output, seconds."""
        return finish(self.start(ranks, *args, **popen), timeout)

    def train(self, ranks, config, *args):
        """Runs training that must succeed."""
        code, output, _ = self.run(ranks, "train", config, *args)
        if code != 0:
            raise AssertionError(f"{config} on {ranks} ranks ended with {code}:\n{output}")
        return output


def finish(process, timeout=300):
    start = time.monotonic()
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        end_group(process)
        output, _ = process.communicate()
        raise AssertionError(f"still running after {timeout} s:\n{output}") from None
    return process.returncode, output, time.monotonic() - start


def end_group(process):
    """Kills a launcher of ours and its ranks."""
    for pid in [*children(process.pid), process.pid]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def children(pid):
    """Process ids started by `pid`, in order: the ranks of an mpirun."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]
    except OSError:
        return []


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, what, process=None, timeout=180, poll=0.002):
    """Polls until condition() is true; fails when time runs out or `process` ends before."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended before {what}:\n{process.stdout.read()}")
        if time.monotonic() > end:
            raise AssertionError(f"no {what} within {timeout} s")
        time.sleep(poll)


def last_step(run):
    """The newest step of a running run's metrics, 0 before the first."""
    try:
        with open(run / "metrics.jsonl", "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8192))
            steps = re.findall(rb'^\{"step":(\d+)', file.read(), re.MULTILINE)
    except OSError:
        return 0
    return int(steps[-1]) if steps else 0


def metrics(run):
    """step -> figures that must not depend on when or how often the run was interrupted."""
    steps = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        item = json.loads(line)
        if "loss" not in item:
            continue
        if item["step"] in steps:
            raise AssertionError(f"{run}: step {item['step']} is there twice")
        steps[item["step"]] = {k: v for k, v in item.items() if k not in CLOCK_KEYS}
    return steps


def checkpoints(run):
    """step -> directory of the complete checkpoints."""
    return {int(path.parent.name[5:]): path.parent
            for path in (run / "checkpoints").glob("step-*/manifest.json")
            if re.fullmatch(r"step-\d{8,}", path.parent.name)}


def read_safetensors(path):
    """name -> (dtype, shape, bytes)"""
    data = Path(path).read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = (entry["dtype"], entry["shape"], data[8 + size + begin:8 + size + end])
    return tensors


def read_checkpoint(path):
    """Tensor key -> (dtype, shape, bytes of the whole), put together from the shards' slices, and
    the manifest."""
    manifest = json.loads((path / "manifest.json").read_text())
    shards = [read_safetensors(path / shard["file"]) for shard in manifest["shards"]]
    whole = {}
    for key, tensor in manifest["tensors"].items():
        pieces = sorted(tensor["slices"], key=lambda s: s["begin"])
        data = b"".join(shards[s["shard"]][s["key"]][2] for s in pieces)
        whole[key] = (tensor["dtype"], tensor["shape"], data)
    return whole, manifest


def floats(tensor):
    dtype, _, data = tensor
    assert dtype.lower() in ("f32", "float32"), dtype
    return struct.unpack(f"<{len(data) // 4}f", data)


class Report:
    """Outcomes, printed as they come; exit_code() at the end."""

    def __init__(self):
        self.failed = 0

    def check(self, name, condition, detail=""):
        print(f"{'ok   ' if condition else 'WRONG'} {name}" + (f": {detail}" if detail else ""),
              flush=True)
        self.failed += not condition

    def case(self, name, function, *args):
        """Runs function(*args); what it returns is the detail, an AssertionError the failure."""
        start = time.monotonic()
        try:
            detail = function(*args) or ""
            self.check(name, True, f"{detail} ({time.monotonic() - start:.1f} s)".lstrip())
        except AssertionError as error:
            line = traceback.extract_tb(error.__traceback__)[-1]
            self.check(name, False, f"{line.filename}:{line.lineno}: {line.line}\n{error}")

    def exit_code(self):
        print(f"{self.failed} failed" if self.failed else "all passed")
        return 1 if self.failed else 0


def require_mpirun():
    if MPIRUN is None:
        print("skipped: there is no mpirun")
        sys.exit(77)  # ctest's SKIP_RETURN_CODE
