"""scripts/gpu/check.sh on the emulator: a pack made of a build, a driver that pretends.

  check_dry_run.py FOLDER_OF_PROGRAMS EMULATED_BACKEND
The CPU's figures are recorded anew; the steps below must pass.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEPS = ["losses of dense_fp32", "loss of a trained model"]
if os.environ.get("ADAGATE_TEST_FULL") == "1":  # bf16 products take the emulator long
    STEPS += ["losses of adaptive_bf16", "same seed twice"]


def make_pack(root, programs):
    pack = root / "pack"
    (pack / "bin").mkdir(parents=True)
    (pack / "bin/adagate").symlink_to(programs / "adagate")
    (pack / "pack.json").write_text('{"commit": "none", "uncommitted_changes": false}')
    driver = root / "tools/nvidia-smi"
    driver.parent.mkdir()
    driver.write_text("#!/bin/sh\necho 'Emulator, 0, 0 MiB, 9.0, 0 MHz'\n")
    driver.chmod(0o755)
    return pack


def main():
    programs, backend = (Path(word).resolve() for word in sys.argv[1:3])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        environment = {**os.environ, "ADAGATE_GPU_PACK": str(make_pack(root, programs)),
                       "ADAGATE_CUDA_LIBRARY": str(backend), "ADAGATE_GPU_CHECK_SMALL": "1",
                       "PATH": f"{root / 'tools'}:{os.environ['PATH']}"}
        subprocess.run(["bash", "-c", "source scripts/gpu/env.sh && "
                        "exec python3 -B scripts/gpu/reference.py"], cwd=ROOT, env=environment,
                       check=True)
        only = [word for step in STEPS for word in ("--only", step)]
        code = subprocess.run([ROOT / "scripts/gpu/check.sh", "correctness", root / "out", *only,
                               "--steps", "2", "--patience", "20", "--minutes", "9"],
                              env=environment, check=False).returncode
        records = json.loads((root / "out/report.json").read_text())["records"]
    passed = [r["name"] for r in records if r["outcome"] == "passed"]
    missing = [step for step in STEPS if not any(step in name for name in passed)]
    if code != 0 or missing:
        for record in records:
            print(record["name"], record["outcome"], record["reason"], file=sys.stderr)
        sys.exit(f"the check ended with {code}; nothing passed of: {missing}")


if __name__ == "__main__":
    main()
