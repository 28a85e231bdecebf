"""Simulated cluster hosts on one machine: namespaces with a name, a network interface, /dev/shm and
/tmp of their own. The kernel takes them away with the test, and all processes in them: nothing
outside is touched, be it process, interface or address. Needs root, iproute2 and util-linux."""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

INSIDE = "ADAGATE_TEST_INSIDE_NAMESPACES"
NETWORK = "10.66.0"

# Of one host, in its namespaces: its name, its own /dev/shm and /tmp, in which the shared folder
# (a network file system, as it were) stays visible.
HOST_INIT = """
set -e
hostname "$1"
mount --make-rprivate /
mount -t tmpfs -o size=64m tmpfs /dev/shm
mount --bind "$2/hosts" /etc/hosts
mkdir -p "$2/$1/tmp/$(basename "$2")" "$2/$1/tmp/private"
mount --bind "$2" "$2/$1/tmp/$(basename "$2")"
mount --rbind "$2/$1/tmp" /tmp
ip link set lo up
: > "$2/$1.ready"
exec sleep infinity
"""

# What mpirun starts instead of ssh: a command on another host, with a login's environment.
AGENT = """#!/bin/bash
while [ "${{1#-}}" != "$1" ]; do shift; done
host=$1; shift
exec {enter} -t "$(cat {folder}/$host.pid)" --net --uts --ipc --mount --wd=/root \\
  env -i HOME=/root USER=root SHELL=/bin/bash PATH={path} {environment} bash -c "$*"
"""


def reason_to_skip():
    """Why there can be no hosts here; empty when there can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    for tool in ("ip", "unshare", "nsenter", "mount", "mpirun"):
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    version = subprocess.run(["mpirun", "--version"], capture_output=True, text=True).stdout
    if "Open MPI" not in version and "OpenRTE" not in version:
        return "the hosts are made for Open MPI's mpirun"
    probe = ("ip link add br0 type bridge && ip link add p type veth peer name eth0 && "
             "unshare --uts --ipc mount -t tmpfs tmpfs /dev/shm")
    made = subprocess.run([*NAMESPACES, "sh", "-c", probe], capture_output=True, text=True)
    return "" if made.returncode == 0 else f"no namespaces here: {made.stderr.strip()}"


NAMESPACES = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--net",
              "--uts"]


def enter_namespaces():
    """Runs this script again as the first process of namespaces of its own, whose end is the end of
    all processes in them; returns there, and ends the process outside."""
    if os.environ.get(INSIDE) == "1":
        return
    reason = reason_to_skip()
    if reason:
        print(f"skipped: {reason}")
        sys.exit(77)  # ctest's SKIP_RETURN_CODE
    command = [*NAMESPACES, sys.executable, "-B", *sys.argv]
    sys.exit(subprocess.run(command, env=dict(os.environ, **{INSIDE: "1"})).returncode)


def run(*command, **options):
    return subprocess.run(command, check=True, **options)


class Cluster:
    """Hosts h1, h2, ... on one switch, and a folder that all of them see."""

    def __init__(self, hosts, environment):
        self.folder = Path(tempfile.mkdtemp(prefix="adagate-hosts-", dir="/tmp"))
        self.environment = environment
        self.pids = {}
        names = [f"h{k + 1}" for k in range(hosts)]
        lines = ["127.0.0.1 localhost"]
        lines += [f"{NETWORK}.{k + 1} {name}" for k, name in enumerate(names)]
        (self.folder / "hosts").write_text("\n".join(lines) + "\n")
        told = " ".join(f"{k}={v}" for k, v in environment.items() if k.startswith(("O", "A")))
        agent = self.folder / "agent.sh"
        agent.write_text(AGENT.format(enter=shutil.which("nsenter"), folder=self.folder,
                                      path=os.environ["PATH"], environment=told))
        agent.chmod(0o755)
        run("mount", "--make-rprivate", "/")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "br0", "type", "bridge")
        run("ip", "link", "set", "br0", "up")
        for k, name in enumerate(names):
            self.start(name, f"{NETWORK}.{k + 1}/24")

    def start(self, name, address):
        process = subprocess.Popen(
            ["unshare", "--net", "--uts", "--ipc", "--mount", "sh", "-c", HOST_INIT, "sh", name,
             str(self.folder)], stdin=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while not (self.folder / f"{name}.ready").exists():
            assert process.poll() is None and time.monotonic() < end, f"host {name} does not start"
            time.sleep(0.01)
        self.pids[name] = process.pid
        (self.folder / f"{name}.pid").write_text(str(process.pid))
        run("ip", "link", "add", f"p_{name}", "type", "veth", "peer", "name", "eth0", "netns",
            str(process.pid))
        run("ip", "link", "set", f"p_{name}", "master", "br0", "up")
        self.ip(name, "addr", "add", address, "dev", "eth0")
        self.ip(name, "link", "set", "eth0", "up")

    def ip(self, host, *arguments):
        run("nsenter", "-t", str(self.pids[host]), "--net", "ip", *arguments)

    def enter(self, host):
        return ["nsenter", "-t", str(self.pids[host]), "--net", "--uts", "--ipc", "--mount",
                f"--wd={self.folder}"]

    def on(self, host, *command):
        return run(*self.enter(host), *map(str, command), env=self.environment)

    def mpirun(self, hosts, *command, interface="eth0"):
        """Starts mpirun on the first of `hosts` ("h1:2,h2:2"); interface None: Open MPI chooses."""
        options = ["--mca", "plm_rsh_agent", str(self.folder / "agent.sh"), "--mca", "btl",
                   "tcp,self,vader"]
        if interface:
            options += ["--mca", "oob_tcp_if_include", interface,
                        "--mca", "btl_tcp_if_include", interface]
        first = hosts.split(":")[0]
        return subprocess.Popen([*self.enter(first), "mpirun", *options, "-H", hosts,
                                 *map(str, command)], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                env=self.environment)

    def processes(self, host, program=None):
        """Process ids of a host apart from its first one; of one program only, by its name."""
        own = os.readlink(f"/proc/{self.pids[host]}/ns/uts")
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.pids[host]:
                continue
            try:
                name = (entry / "comm").read_text().strip()
                if os.readlink(entry / "ns/uts") == own and program in (None, name):
                    found.append(int(entry.name))
            except OSError:
                pass  # it has ended
        return sorted(found)

    def kill(self, pids):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name, pid in self.pids.items():
            self.kill([*self.processes(name), pid])
        shutil.rmtree(self.folder, ignore_errors=True)
