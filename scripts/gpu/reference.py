"""Records the CPU's figures that scripts/gpu/check.sh compares with; started by pack.sh.

Writes $ADAGATE_GPU_PACK/reference: figures.json, and the run whose checkpoint evaluate and generate
take on both sides.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import cases
from steps import Commands, Failed


def main():
    folder = Path(os.environ["ADAGATE_GPU_PACK"]) / "reference"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    commands = Commands(3600)
    figures = {"losses": {}}
    kept = folder / "run"
    with tempfile.TemporaryDirectory() as scratch:
        for case in cases.all_cases():
            is_kept = case.name == cases.KEPT_CASE
            output = kept if is_kept else Path(scratch) / case.name
            more = {} if is_kept else {"checkpoint.save_at_end": "false"}
            steps = cases.train(commands, case, "adagate", "cpu", output, more=more)
            figures["losses"][case.name] = losses = cases.losses_of(steps)
            print(f"{case.name}: {len(losses)} steps, loss {losses[0]:.4f} to {losses[-1]:.4f}")
    run = ["adagate", "evaluate", kept, "--data", cases.ROOT / "data/samples/shakespeare.txt"]
    figures["evaluate"] = json.loads(commands.call([*run, "--device", "cpu", *cases.EVALUATE]))
    figures["generate"] = json.loads(
        commands.call(["adagate", "generate", kept, "--device", "cpu", *cases.GENERATE]))
    (folder / "figures.json").write_text(json.dumps(figures) + "\n")


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"reference: {error}")
