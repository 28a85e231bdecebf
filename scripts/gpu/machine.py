"""What this machine is and has: driver, GPU, libraries, tools, Python packages."""

import json
import os
import platform
import re
import shutil
import sys
import tempfile
from pathlib import Path

from steps import Failed, Skip

NVIDIA_TOOLS = {
    "ncu": ["/usr/local/cuda*/bin/ncu", "/opt/nvidia/nsight-compute/*/ncu"],
    "compute-sanitizer": ["/usr/local/cuda*/bin/compute-sanitizer",
                          "/usr/local/cuda*/compute-sanitizer/compute-sanitizer"],
}


def pack():
    return Path(os.environ["ADAGATE_GPU_PACK"])


def device():
    """What is checked; cpu: these scripts themselves, on a machine without a GPU."""
    return os.environ.get("ADAGATE_GPU_CHECK_DEVICE", "cuda")


def program(name):
    """A program of the pack."""
    path = pack() / "bin" / name
    if not path.exists():
        raise Skip(f"the pack has no {name}: scripts/gpu/pack.sh")
    return path


def tool(name):
    """One of NVIDIA's tools, on PATH or where its installers put it."""
    found = shutil.which(name)
    for pattern in [] if found else NVIDIA_TOOLS.get(name, []):
        for path in sorted(Path("/").glob(pattern.lstrip("/")), reverse=True):
            if os.access(path, os.X_OK):
                return str(path)
    if not found:
        raise Skip(f"{name} is not installed")
    return found


def outer_environment():
    """For programs of this machine's own, such as its PyTorch, which bring their libraries."""
    environment = dict(os.environ)
    environment["LD_LIBRARY_PATH"] = environment.get("ADAGATE_OUTER_LIBRARY_PATH", "")
    return environment


def run_python(commands, script, *words):
    """One of these scripts that needs PyTorch, by this machine's python3 with its libraries."""
    path = Path(__file__).resolve().parent / script
    try:
        return commands.call([sys.executable, "-B", path, *words, "--device", device()],
                             outer_environment())
    except Failed as error:
        missing = re.search(r"No module named '(\w+)'", str(error))
        if missing:
            raise Skip(f"this machine's python3 has no {missing[1]}") from None
        raise


def scratch_folder():
    """For weights and runs: in memory where there is plenty, since weights have gigabytes."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 16 << 30
    return tempfile.TemporaryDirectory(prefix="adagate-gpu-", dir=memory if roomy else None)


def describe(report):
    """The step that finds out what the others stand on."""

    def run(commands):
        packed = json.loads((pack() / "pack.json").read_text())
        facts = {"device": device(), "commit": packed["commit"],
                 "uncommitted_changes": packed["uncommitted_changes"], "packed": packed,
                 "kernel": platform.release(), "cpus": os.cpu_count(),
                 "python": platform.python_version(), "glibc": platform.libc_ver()[1]}
        facts.update(ask_nvidia_smi(commands))
        for name in NVIDIA_TOOLS:
            try:
                facts[name] = tool(name)
            except Skip as missing:
                facts[name] = str(missing)
        report.note(**facts)
        missing = missing_libraries(commands)
        if missing:
            raise Failed(f"libraries are missing: {', '.join(missing)}; put their folder on "
                         "LD_LIBRARY_PATH, or build on this machine")
        return {"gpu": facts["gpu"], "driver": facts["driver"]}

    return run


def ask_nvidia_smi(commands):
    fields = ["name", "driver_version", "memory.total", "compute_cap", "clocks.max.sm"]
    if device() == "cpu":
        return {"gpu": "none: the scripts are tried on the CPU", "driver": "none"}
    if not shutil.which("nvidia-smi"):
        raise Failed("there is no nvidia-smi: no driver of NVIDIA's is installed")
    answer = commands.call(["nvidia-smi", f"--query-gpu={','.join(fields)}",
                            "--format=csv,noheader"]).strip().splitlines()
    if not answer:
        raise Failed("nvidia-smi shows no GPU")
    name, driver, memory, capability, clock = (answer[0].split(", ") + 4 * ["?"])[:5]
    return {"gpu": name, "gpus": len(answer), "driver": driver, "memory": memory,
            "compute_capability": capability, "largest_clock": clock}


def missing_libraries(commands):
    """Libraries that the pack's programs don't find; the plug-in for NCCL may lack its own."""
    files = [path for path in sorted((pack() / "bin").iterdir())
             if path.name != "libadagate_nccl.so"]
    named = os.environ.get("ADAGATE_CUDA_LIBRARY")
    text = commands.call(["ldd", *files, *([named] if named else [])], codes=(0, 1))
    return sorted(set(re.findall(r"^\s*(\S+) => not found", text, re.M)))


def devices(report):
    """The step that asks adagate itself."""

    def run(commands):
        found = json.loads(commands.call([program("adagate"), "inspect", "--devices", "--json"]))
        report.note(adagate=commands.call([program("adagate"), "--version"]).splitlines())
        if device() == "cpu":
            return found["cpu"]
        if not found["cuda"]:
            raise Failed(f"adagate finds no GPU: {found.get('cuda_unavailable', 'no reason')}")
        return {"device": found["cuda"][0]["name"], "devices": len(found["cuda"])}

    return run


def has_key(commands, key):
    """True if the packed program's configuration has this key, such as parallel.exchange."""
    section, name = key.rsplit(".", 1)
    page = commands.call([program("adagate"), "config", "--reference"])
    part = page.split(f"\n## {section}\n", 1)
    return len(part) == 2 and f"\n| `{name}` |" in part[1].split("\n## ", 1)[0]
