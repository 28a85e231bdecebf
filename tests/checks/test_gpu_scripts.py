"""The scripts that check adagate on a GPU, where there is none: with programs that pretend."""
import contextlib
import io
import json
import os
import pathlib
import stat
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts/gpu"))

import cases  # noqa: E402
import correctness  # noqa: E402
import report  # noqa: E402
import speed  # noqa: E402
import steps  # noqa: E402

# Trains at once: the loss falls by a tenth per step, plus $FAKE_ERROR from step 2 on.
FAKE_ADAGATE = f"""#!{sys.executable}
import json, os, pathlib, sys
words = sys.argv[1:]
settings = dict(w.split("=", 1) for p, w in zip(words, words[1:]) if p == "--set")
if words[0] == "train":
    run = pathlib.Path(words[words.index("--output") + 1])
    (run / "checkpoints/step-1").mkdir(parents=True)
    (run / "checkpoints/step-1/a.safetensors").write_text("weights")
    with open(run / "metrics.jsonl", "w") as file:
        for step in range(int(settings["train.length"].rstrip("s"))):
            loss = 5 - 0.1 * step + (float(os.environ.get("FAKE_ERROR", 0)) if step else 0)
            print(json.dumps({{"type": "step", "loss": loss, "auxiliary_loss": 0, "grad_norm": 1,
                              "single_expert_share": 0.5, "seconds": 0.1, "targets": 100,
                              "flops": 1e6, "peak_memory_bytes": 1, "time": {{"forward": 0.1}}}}),
                  file=file)
elif words[0] == "inspect":
    print(json.dumps({{"cuda": [{{"name": "a GPU"}}]}}))
elif words[0] == "evaluate":
    print(json.dumps({{"loss": 2.5}}))
elif words[0] == "generate":
    print(json.dumps({{"tokens": [1, 2, 3]}}))
elif words[0] == "bench":
    pathlib.Path(words[words.index("--json") + 1]).write_text(json.dumps(
        {{"moe": {{"title": "t", "rows": []}}}}))
"""
FAKE_SMI = "#!/bin/sh\necho 'NVIDIA Pretended, 1.2, 80 GiB, 9.0, 1980 MHz'\n"
FAKE_MPIRUN = "#!/bin/sh\nshift 2\nexec \"$@\"\n"


def write_program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class FakePack:
    """A pack whose programs pretend, and a PATH with a pretended driver, as a context."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        pack = self.root / "pack"
        write_program(pack / "bin/adagate", FAKE_ADAGATE)
        write_program(self.root / "tools/nvidia-smi", FAKE_SMI)
        write_program(pack / "bin/mpirun", FAKE_MPIRUN)
        (pack / "pack.json").write_text('{"commit": "abc", "uncommitted_changes": false}')
        (pack / "reference").mkdir()
        for name in ("numpy", "torch"):  # as on a machine without them
            write_program(self.root / f"python/{name}.py",
                          f"raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')")
        losses = {c.name: [5 - 0.1 * s for s in range(c.steps)] for c in cases.all_cases()}
        (pack / "reference/figures.json").write_text(json.dumps(
            {"losses": losses, "evaluate": {"loss": 2.5}, "generate": {"tokens": [1, 2, 3]}}))
        return self

    def __exit__(self, *error):
        self.folder.cleanup()

    def check(self, part, *options, **environment):
        out = self.root / "out"
        result = subprocess.run(
            [ROOT / "scripts/gpu/check.sh", part, out, *options], capture_output=True, text=True,
            check=False, env={**os.environ, "ADAGATE_GPU_PACK": str(self.root / "pack"),
                              "PYTHONPATH": str(self.root / "python"),
                              "PATH": f"{self.root / 'tools'}:/usr/bin:/bin", **environment})
        values = json.loads((out / "report.json").read_text())
        return result, {r["name"]: r for r in values["records"]}, out


class Checks(unittest.TestCase):
    def test_all_is_well(self):
        with FakePack() as pack:
            result, records, out = pack.check("correctness", "--steps", "5")
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            page = (out / "report.md").read_text()
        self.assertEqual(records["losses of dense_fp32"]["outcome"], "passed")
        self.assertEqual(records["losses of dense_fp32"]["figures"]["steps"], 5)
        self.assertEqual(records["same seed twice, bit for bit"]["outcome"], "passed")
        # What the pack lacks is skipped, and says so.
        self.assertEqual(records["every op against the CPU"]["outcome"], "skipped")
        self.assertIn("test_gpu", records["every op against the CPU"]["reason"])
        self.assertEqual(records["training by NCCL, one rank"]["outcome"], "skipped")
        self.assertIn("NVIDIA Pretended", page)
        self.assertIn("losses of dense_fp32", page)

    def test_wrong_losses_fail_their_steps_alone(self):
        with FakePack() as pack:
            result, records, _ = pack.check("correctness", "--steps", "5", FAKE_ERROR="0.001")
        self.assertEqual(result.returncode, 1)
        self.assertEqual(records["losses of dense_fp32"]["outcome"], "failed")
        self.assertIn("step 2", records["losses of dense_fp32"]["reason"])
        self.assertEqual(records["losses of dense_bf16"]["outcome"], "passed")
        self.assertEqual(records["loss of a trained model"]["outcome"], "passed")

    def test_no_driver_ends_the_part(self):
        with FakePack() as pack:
            (pack.root / "tools/nvidia-smi").unlink()
            result, records, _ = pack.check("correctness")
        self.assertEqual(result.returncode, 1)
        self.assertIn("nvidia-smi", records["machine and libraries"]["reason"])
        self.assertEqual(records["losses of dense_fp32"]["outcome"], "skipped")
        self.assertNotIn("Traceback", result.stdout + result.stderr)

    def test_speed_without_pytorch(self):
        with FakePack() as pack:
            _, records, out = pack.check("speed", "--only", "GPT-2 124M beside", "--only", "MoE",
                                            "--only", "PyTorch")
            page = (out / "report.md").read_text()
        pair = records["GPT-2 124M beside PyTorch"]
        self.assertEqual(pair["outcome"], "passed", pair["reason"])
        self.assertAlmostEqual(pair["figures"]["adagate"]["tokens_per_second"], 1000)
        self.assertIn("numpy", pair["figures"]["no_pytorch_because"])
        self.assertEqual(records["single parts in PyTorch"]["outcome"], "skipped")
        self.assertIn("MISSED", page)

    def test_without_a_pack(self):
        result = subprocess.run([ROOT / "scripts/gpu/check.sh", "speed", "/tmp/none"],
                                capture_output=True, text=True, check=False,
                                env={**os.environ, "ADAGATE_GPU_PACK": "/nonexistent"})
        self.assertEqual(result.returncode, 1)
        self.assertIn("pack.sh", result.stderr)


class Steps(unittest.TestCase):
    def setUp(self):  # steps print a line each
        silence = contextlib.redirect_stdout(io.StringIO())
        silence.__enter__()
        self.addCleanup(silence.__exit__, None, None, None)

    def runner(self, folder, minutes=1.0):
        return steps.Runner("part", steps.Report(folder), minutes)

    def test_a_step_ends_at_its_limit_with_all_it_started(self):
        commands, start = steps.Commands(0.5), time.monotonic()
        with self.assertRaises(steps.OutOfTime):
            commands.call(["bash", "-c", "echo begun; sleep 30 & sleep 30"])
        self.assertLess(time.monotonic() - start, 5)
        self.assertIn("begun", commands.log[0])

    def test_a_command_that_fails_tells_why(self):
        with self.assertRaisesRegex(steps.Failed, "ended with 3: the disk is full"):
            steps.Commands(5).call(["bash", "-c", "echo the disk is full >&2; exit 3"])

    def test_outcomes_are_recorded_as_they_come(self):
        def skipping(commands):
            raise steps.Skip("no tool")

        def broken(commands):
            return {"x": json.loads("{")}

        with tempfile.TemporaryDirectory() as folder:
            runner = self.runner(folder)
            self.assertTrue(runner.run(steps.Step("good", 5, lambda c: {"x": 1})))
            runner.run(steps.Step("skipped", 5, skipping))
            runner.run(steps.Step("broken", 5, broken, required=True))
            runner.run(steps.Step("after", 5, lambda c: {}))
            self.assertFalse(runner.finish())
            values = json.loads((pathlib.Path(folder) / "report.json").read_text())
            self.assertEqual([r["outcome"] for r in values["records"]],
                             ["passed", "skipped", "failed", "skipped"])
            self.assertIn("broken", values["records"][3]["reason"])
            self.runner(folder)  # another run of the part forgets the first
            values = json.loads((pathlib.Path(folder) / "report.json").read_text())
            self.assertEqual(values["records"], [])

    def test_no_step_starts_without_time(self):
        with tempfile.TemporaryDirectory() as folder:
            runner = self.runner(folder, minutes=0.01)
            runner.run(steps.Step("late", 5, lambda c: {}, least=3))
            self.assertEqual(runner.outcomes, ["skipped"])


class Judgements(unittest.TestCase):
    def test_losses(self):
        self.assertEqual(cases.compare_losses([1.0], [1.00005, 2], 1e-4)["steps"], 1)
        for wrong in ([1.1], [float("nan")], [None], [], [1, 2, 3]):
            with self.assertRaises(steps.Failed):
                cases.compare_losses(wrong, [1.0, 2.0], 1e-4)

    def test_sanitizer(self):
        clean = "========= ERROR SUMMARY: 0 errors\n"
        self.assertEqual(correctness.judge_sanitizer("memcheck", clean, 0), "no findings")
        for text, code in (("ERROR SUMMARY: 2 errors", 9), ("", 0),
                           ("RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)", 0)):
            with self.assertRaises(steps.Failed):
                correctness.judge_sanitizer("tool", text, code)
        with self.assertRaises(steps.Skip):
            correctness.judge_sanitizer("memcheck", "Error: Device not supported.", 1)

    def test_kernels_of_a_profile(self):
        text = ("==PROF== Connected\n"
                '"ID","Kernel Name","dram__bytes_read.sum","dram__bytes_write.sum",'
                '"gpu__time_duration.sum"\n"","","Mbyte","Kbyte","usecond"\n'
                '"0","void adagate::norm<float, 256>(Args)","2.0","500","10"\n'
                '"1","void adagate::<unnamed>::norm<float, 256>(Args)","1.5","0","10"\n')
        (kernel,) = speed.kernels_of(text)
        self.assertEqual((kernel["name"], kernel["launches"]), ("norm", 2))
        self.assertAlmostEqual(kernel["gbytes_per_second"], 4e6 / 20e-6 / 1e9)

    def test_targets(self):
        row = {"experts": 16, "routing": "balanced", "single_percent": 0, "vs_dense": 0.9, "ms": 5}
        records = [{"name": "MoE layer", "figures": {"moe": [
                       row, {**row, "experts": 8, "ms": 4},
                       {**row, "experts": 8, "single_percent": 80, "ms": 3}]}},
                   {"name": "GPT-2 124M beside PyTorch", "figures": {
                       "ratio": 1.15, "adagate": {"tokens_per_second": 620e3}}}]
        self.assertEqual([verdict for *_, verdict in report.targets(records)],
                         ["goal met", "met", "met", "not measured", "MISSED", "not measured"])

    def test_a_part_in_both_programs(self):
        kernel = {"kernel": "attention, context 1024", "ms": 2.5, "bound": "compute"}
        records = [{"name": "single parts in PyTorch", "figures": {
                       "copy_gbytes": 4300.0, "product_tflops": 780.0, "moe_ms": {"16": 9.0},
                       "attention": {"forward_ms": 3.0, "backward_ms": 7.0}}},
                   {"name": "kernels at the sizes of GPT-2 124M", "figures": {"kernels": [kernel],
                    "peaks": [{"what": "bf16 product", "gflops": 790e3, "gbytes": None}]}}]
        lines = report.part_lines(records)
        self.assertIn("| attention, ms | 2.50 | 3.00 |", lines)
        self.assertIn("| MoE layer, 16 experts, top-2, ms | - | 9.00 |", lines)
        self.assertEqual(report.measured_peak(records), 790)

    def test_an_empty_report(self):
        self.assertIn("unknown", report.markdown({"machine": {}, "records": []}))


if __name__ == "__main__":
    unittest.main()
