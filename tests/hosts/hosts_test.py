#!/usr/bin/env python3
"""What a user of a cluster relies on: hosts_test.py PROGRAM MPI_PROGRAM [CHECK]...

Trains on simulated hosts (cluster.py). Checks: layouts, messages, start, watchdog, killed.
MPI_PROGRAM is tests/parallel_mpi/mpi_program.cpp, built. hosts_test.py --reason prints why it can't
run here, nothing when it can.
"""
import argparse
import os
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "faults"))

from cluster import Cluster, enter_namespaces, reason_to_skip  # noqa: E402
from harness import (REPO, Report, environment, finish, last_step, metrics,  # noqa: E402
                     wait_for)

CONFIG = """
output: out
data: {tokenizer: byte, train: text.txt}
model: {preset: modern, layers: 2, width: 32, heads: 2, context: 32}
moe: {experts: 4, every: 1, gate: {policy: adaptive, threshold: 0.1}}
parallel: {expert: 2, threads: 1, start_timeout: 30, timeout: 30}
train:
  length: 60s
  batch: 8
  evaluate_every: 0s
  optimizer: {learning_rate: 2.0e-3}
  schedule: {warmup: 5s, decay: constant}
checkpoint: {every: 10s}
"""
FOUR_HOSTS = "h1:1,h2:1,h3:1,h4:1"
BOUND = 15.0  # seconds from an error or a kill to the end of mpirun


class Checks:
    def __init__(self, cluster, report):
        self.cluster, self.report = cluster, report
        self.reference = None

    def train(self, hosts, output, *arguments, config="c.yaml", **options):
        return self.cluster.mpirun(hosts, "./adagate", "train", config, "--output", output,
                                   *arguments, **options)

    def figures(self, hosts, output, *arguments):
        """Of a run that must succeed."""
        code, text, _ = finish(self.train(hosts, output, *arguments), 120)
        assert code == 0, f"{hosts}: ended with {code}:\n{text}"
        return metrics(self.cluster.folder / output)

    def expected(self):
        if self.reference is None:
            self.reference = self.figures("h1:4", "reference")
        return self.reference

    def layout(self, hosts):
        found = self.figures(hosts, "on_" + hosts.replace(":", "_").replace(",", "_"))
        assert found == self.expected(), "the figures differ from those of one host"

    def told_once(self, process, *words, bound=BOUND):
        """The process ends with one message of ours that holds all words."""
        start = time.monotonic()
        code, text, _ = finish(process, 60)
        took = time.monotonic() - start
        told = [line for line in text.splitlines() if line.startswith("adagate")]
        assert code != 0, f"ended with 0:\n{text}"
        assert len(told) == 1, f"{len(told)} messages:\n{text}"
        missing = [word for word in words if word not in told[0]]
        assert not missing, f"{missing} are not in: {told[0]}"
        assert took < bound, f"took {took:.1f} s"
        return f"in {took:.1f} s: {told[0][:100]}"

    def layouts(self):
        for hosts in ("h1:2,h2:2", "h1:3,h2:1", FOUR_HOSTS):
            self.report.case(f"{hosts} gives the bits of one host", self.layout, hosts)

    def messages(self):
        case, on = self.report.case, self.cluster.on
        case("one message: a wrong option on all hosts", lambda: self.told_once(
            self.train(FOUR_HOSTS, "e1", "--bach", "4"), "--bach"))
        case("one message: a wrong key on all hosts", lambda: self.told_once(
            self.train(FOUR_HOSTS, "e2", "--set", "train.bach=4"), "train.bach"))
        case("one message: no data on any host", lambda: self.told_once(
            self.train(FOUR_HOSTS, "e3", "--set", "data.train=none.txt"), "none.txt"))
        on("h1", "./adagate", "tokenize", "text.txt", "--tokenizer", "byte", "--output",
           "text.tokens")
        for host in ("h1", "h2", "h3"):
            on(host, "cp", "c.yaml", "text.tokens", "/tmp/private")
        case("one message: the configuration is missing on one host", lambda: self.told_once(
            self.train(FOUR_HOSTS, "e4", config="/tmp/private/c.yaml"), "rank 3",
            "/tmp/private/c.yaml"))
        on("h4", "cp", "c.yaml", "/tmp/private")
        case("one message: the data are missing on one host", lambda: self.told_once(
            self.train(FOUR_HOSTS, "e5", "--set", "data.train=/tmp/private/text.tokens"),
            "/tmp/private/text.tokens", "h4"))

    def interface(self):
        for host in ("h1", "h2"):
            self.cluster.ip(host, "link", "add", "docker0", "type", "bridge")
            self.cluster.ip(host, "addr", "add", "172.17.0.1/16", "dev", "docker0")
            self.cluster.ip(host, "link", "set", "docker0", "up")
        try:
            return self.told_once(
                self.train("h1:2,h2:1", "e6", "--set", "parallel.start_timeout=3",
                           "--set", "parallel.expert=1", interface=None),
                "between h1 and h2 within 3 s", "btl_tcp_if_include", "oob_tcp_if_include")
        finally:
            for host in ("h1", "h2"):
                self.cluster.ip(host, "link", "del", "docker0")

    def stopped(self):
        """A rank that does not come to the start: stopped before MPI."""
        script = self.cluster.folder / "late.sh"
        script.write_text('#!/bin/sh\n[ "$OMPI_COMM_WORLD_RANK" = 1 ] && kill -STOP $$\n'
                          'exec ./adagate "$@"\n')
        script.chmod(0o755)
        process = self.cluster.mpirun("h1:1,h2:1", "./late.sh", "train", "c.yaml", "--output",
                                      "e7", "--set", "parallel.start_timeout=2", "--set",
                                      "parallel.expert=1")
        return self.told_once(process, "MPI_Init has not returned within 2 s on host h1", bound=30)

    def start(self):
        self.report.case("an interface without a way between the hosts", self.interface)
        self.report.case("a host that does not come", self.stopped)

    def hanging(self, hosts, *words):
        process = self.train(hosts, "e8", "--set", "parallel.timeout=2", "--set",
                             "train.length=100000s", "--set", "checkpoint.every=0s",
                             "--set", "parallel.expert=1", "--overwrite")
        wait_for(lambda: last_step(self.cluster.folder / "e8") >= 10, "step 10", process)
        time.sleep(1)  # hosts tell each other four times in the 2 s where their ranks are
        os.kill(self.cluster.processes("h2", "adagate")[0], signal.SIGSTOP)
        return self.told_once(process, *words, bound=30)

    def working(self, mode, hosts="h1:1,h2:1"):
        code, text, _ = finish(self.cluster.mpirun(hosts, "./mpi_program", mode), 60)
        assert code == 0 and "waited for rank 1" in text, f"ended with {code}:\n{text}"

    def watchdog(self):
        self.report.case("a rank that hangs is named with host and step", self.hanging, FOUR_HOSTS,
                         "for rank 1 (host h2; last at: step ")
        self.report.case("a rank at work is waited for", self.working, "work")

    def disturbed(self, output, kill, relaunch):
        process = self.train("h1:2,h2:2", output)
        wait_for(lambda: last_step(self.cluster.folder / output) >= 15, "step 15", process)
        kill()
        code, text, took = finish(process, 60)
        assert code != 0, f"ended with 0:\n{text}"
        assert took < BOUND, f"took {took:.1f} s to end"
        wait_for(lambda: not (self.cluster.processes("h1", "adagate") +
                              self.cluster.processes("h2", "adagate")), "end of all ranks",
                 timeout=BOUND)
        found = self.figures(relaunch, output, "--resume=auto")
        assert found == self.expected(), "the relaunch differs from a run that nobody killed"
        return f"all ended within {took:.1f} s"

    def killed(self):
        cluster = self.cluster
        self.report.case("a rank of another host is killed", self.disturbed, "k1",
                         lambda: cluster.kill(cluster.processes("h2", "adagate")[:1]), "h1:2,h2:2")
        self.report.case("a host is killed", self.disturbed, "k2",
                         lambda: cluster.kill(cluster.processes("h2")), FOUR_HOSTS)


def main():
    if sys.argv[1:] == ["--reason"]:
        print(reason_to_skip())
        return 0
    checks = ("layouts", "messages", "start", "watchdog", "killed")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("mpi_program")
    parser.add_argument("checks", nargs="*", choices=[*checks, []])
    arguments = parser.parse_args()
    enter_namespaces()
    report = Report()
    with Cluster(4, environment()) as cluster:
        shutil.copy(arguments.program, cluster.folder / "adagate")
        shutil.copy(arguments.mpi_program, cluster.folder / "mpi_program")
        (cluster.folder / "c.yaml").write_text(CONFIG)
        text = (REPO / "data/samples/shakespeare.txt").read_bytes()[:60000]
        (cluster.folder / "text.txt").write_bytes(text)
        of_cluster = Checks(cluster, report)
        for check in arguments.checks or checks:
            getattr(of_cluster, check)()
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
