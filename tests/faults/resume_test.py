#!/usr/bin/env python3
"""An interrupted run goes on as if nothing had happened: resume_test.py PROGRAM [--full]

Forty steps at once against twenty, an interruption, and twenty more: losses, norms, routing and the
final checkpoint equal bit for bit. Stops by SIGTERM and SIGUSR1, to mpirun and to a single rank.
A checkpoint of four ranks goes on in other layouts.
"""
import argparse
import os
import signal
import sys

from harness import (FULL, Program, Report, Scratch, checkpoints, children, finish, floats,
                     is_alive, last_step, metrics, read_checkpoint, require_mpirun, wait_for)

BOUNDARY = 5120  # bytes of text: 160 samples, an epoch ends with step 20
INSIDE = 3400    # 107 samples: 14 steps, the last one smaller


def expect_same_run(reference, run, first, last):
    """Figures of the steps first..last and the checkpoint after the last, bit for bit."""
    expected, found = metrics(reference), metrics(run)
    for step in range(first, last + 1):
        if found.get(step) != expected[step]:
            keys = [k for k in expected[step] if found.get(step, {}).get(k) != expected[step][k]]
            raise AssertionError(f"step {step} differs in {', '.join(keys)}")
    expected, manifest = read_checkpoint(checkpoints(reference)[last])
    found, other = read_checkpoint(checkpoints(run)[last])
    assert expected.keys() == found.keys(), "the checkpoints hold different tensors"
    different = [key for key in expected if expected[key] != found[key]]
    assert not different, f"{len(different)} tensors differ, e.g. {different[0]}"
    for key in ("step", "epoch", "epoch_step", "consumed_samples", "consumed_tokens", "extra"):
        assert manifest[key] == other[key], f"{key}: {other[key]} instead of {manifest[key]}"
    return len(expected)


def twenty_and_twenty(program, ranks, expert, precision, text_bytes):
    """A checkpoint after step 20, gone on from by a new process, against 40 steps at once."""
    with Scratch(text_bytes) as scratch:
        options = dict(expert=expert, precision=precision)
        whole = scratch.config("whole", **options)
        program.train(ranks, whole)
        parts = scratch.config("parts", every="20s", **options)
        program.train(ranks, parts)
        again = scratch.config("again", **options)
        run = scratch.path / "again"
        step20 = checkpoints(scratch.path / "parts")[20]
        _, manifest = read_checkpoint(step20)
        inside = 0 < manifest["epoch_step"] < (text_bytes // 32 + 7) // 8
        assert inside == (text_bytes == INSIDE), f"the epoch stands at {manifest['epoch_step']}"
        output = program.train(ranks, again, f"--resume={step20}")
        assert min(metrics(run)) == 21, f"went on with step {min(metrics(run))}:\n{output}"
        tensors = expect_same_run(scratch.path / "whole", run, 21, 40)
        expect_same_run(scratch.path / "whole", scratch.path / "parts", 1, 40)
        shares = [figures["single_expert_share"] for figures in metrics(run).values()]
        assert 0 < sum(shares) / len(shares) < 1, "the gate never chose, which tests little"
        return f"{tensors} tensors"


def stop_and_resume(program, name, number, whom, mpirun_args=(), status=0):
    """A signal in the middle of a run: a checkpoint, the exit code, and ten more steps."""
    with Scratch(INSIDE) as scratch:
        endless = scratch.config("stopped", expert=2, length="1000000s")
        run = scratch.path / "stopped"
        process = program.start(2, "train", endless, mpirun_args=mpirun_args)
        wait_for(lambda: last_step(run) >= 7, "step 7", process)
        ranks = children(process.pid)
        assert len(ranks) == 2, f"ranks: {ranks}"
        os.kill({"mpirun": process.pid, "rank 0": ranks[0], "rank 1": ranks[1]}[whom], number)
        code, output, took = finish(process)
        saved = checkpoints(run)
        assert saved, f"no checkpoint; exit code {code}:\n{output}"
        step = max(saved)
        assert code == status, f"exit code {code} instead of {status}:\n{output}"
        wait_for(lambda: not any(map(is_alive, ranks)), "end of the ranks", timeout=5)

        whole = scratch.config("whole", expert=2, length=f"{step + 10}s")
        program.train(2, whole)
        output = program.train(2, endless, "--set", f"train.length={step + 10}s", "--resume=auto")
        assert f"at step {step}" in output, f"did not go on from step {step}:\n{output}"
        expect_same_run(scratch.path / "whole", run, 1, step + 10)
        return f"step {step} saved, exit code {code} after {took:.1f} s"


def stop_at_any_moment(program, times):
    """SIGTERM to both ranks wherever they are, in a kernel too: a checkpoint, status 0."""
    for time in range(times):
        with Scratch(INSIDE) as scratch:
            config = scratch.config("stopped", expert=2, length="1000000s")
            process = program.start(2, "train", config)
            first = 2 + 7 * time % 100
            wait_for(lambda: last_step(scratch.path / "stopped") >= first, f"step {first}", process)
            for rank in children(process.pid):
                os.kill(rank, signal.SIGTERM)
            code, output, _ = finish(process)
            assert code == 0, f"stop {time} of {times}: exit code {code}:\n{output}"
            assert checkpoints(scratch.path / "stopped"), f"stop {time}: no checkpoint:\n{output}"
    return f"{times} stops"


def relative(a, b):
    return abs(a - b) / max(abs(a), abs(b), 1e-30)


def figures_of(step):
    """Figure -> number, of a step's metrics; without the traffic and the load of ranks."""
    numbers = {key: value for key, value in step.items()
               if isinstance(value, (int, float)) and key != "rank_imbalance"}
    for layer, routing in enumerate(step["moe"]):
        for key, value in routing.items():
            for i, number in enumerate(value if isinstance(value, list) else [value]):
                if not key.endswith("_sent") and key != "rank_imbalance":
                    numbers[f"moe.{layer}.{key}.{i}"] = number
    return numbers


def other_layouts(program, layouts):
    """A checkpoint of 4 ranks, expert parallel over 4, goes on in other layouts to round-off."""
    with Scratch(INSIDE) as scratch:
        first = scratch.config("first", expert=4, length="25s", every="20s")
        program.train(4, first)
        start = checkpoints(scratch.path / "first")[20]
        expected = metrics(scratch.path / "first")
        reference, manifest = read_checkpoint(checkpoints(scratch.path / "first")[25])
        assert (manifest["ranks"], manifest["expert_parallel"]) == (4, 4)
        expert_values = floats(reference["value/blocks.0.moe.experts.up.weight"])
        assert len(set(expert_values)) > 0.99 * len(expert_values), "values are not distinct"
        worst = {"figures": 0.0, "tensors": 0.0}
        for ranks, expert, *settings in layouts:
            name = f"on{ranks}_{expert}"
            config = scratch.config(name, expert=expert, length="25s")
            program.train(ranks, config, f"--resume={start}",
                          *(word for setting in settings for word in ("--set", setting)))
            found = metrics(scratch.path / name)
            assert sorted(found) == [21, 22, 23, 24, 25], f"steps {sorted(found)}"
            for step in found:
                ours, theirs = figures_of(found[step]), figures_of(expected[step])
                assert ours.keys() == theirs.keys() and "moe.1.balance_loss.0" in ours
                for key, value in ours.items():
                    error = relative(value, theirs[key])
                    worst["figures"] = max(worst["figures"], error)
                    assert error < 1e-5, f"({ranks}, {expert}) step {step}: {key} off by {error}"
            tensors, manifest = read_checkpoint(checkpoints(scratch.path / name)[25])
            assert (manifest["ranks"], manifest["expert_parallel"]) == (ranks, expert)
            assert tensors.keys() == reference.keys()
            for key in reference:
                a, b = floats(reference[key]), floats(tensors[key])
                scale = max(map(abs, a)) or 1.0
                error = max(abs(x - y) for x, y in zip(a, b)) / scale
                worst["tensors"] = max(worst["tensors"], error)
                assert error < 1e-5, f"({ranks}, {expert}): {key} off by {error} of its largest"
        return (f"{len(layouts)} layouts, figures within {worst['figures']:.1e}, "
                f"tensors within {worst['tensors']:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--full", action="store_true", default=FULL)
    arguments = parser.parse_args()
    require_mpirun()
    program, report = Program(arguments.program), Report()

    cases = [(2, 2, "fp32", BOUNDARY), (2, 2, "bf16", INSIDE)]
    if arguments.full:
        cases = [(ranks, expert, precision, text) for ranks, expert in ((0, 1), (2, 2), (2, 1))
                 for precision in ("fp32", "bf16") for text in (BOUNDARY, INSIDE)]
    for ranks, expert, precision, text in cases:
        where = "at an epoch's end" if text == BOUNDARY else "inside an epoch"
        report.case(f"20 + 20 = 40 steps, {ranks or 'no'} ranks of mpirun, expert parallel "
                    f"{expert}, {precision}, {where}",
                    twenty_and_twenty, program, ranks, expert, precision, text)

    term, usr1 = ("SIGTERM", signal.SIGTERM), ("SIGUSR1", signal.SIGUSR1)
    patient = ("--mca", "odls_base_sigkill_timeout", "2")
    # mpirun turns SIGTERM into SIGTERM and, a second later, SIGKILL, and ends with 1 whatever the
    # ranks do: the time to save is an option of mpirun's.
    stops = [(*usr1, "mpirun", (), 0), (*term, "rank 1", (), 0),
             (*term, "mpirun", patient, 1)]
    if arguments.full:
        stops += [(*usr1, "rank 0", (), 0), (*usr1, "rank 1", (), 0), (*term, "rank 0", (), 0)]
    for name, number, whom, mpirun_args, status in stops:
        report.case(f"{name} to {whom}, then resumed", stop_and_resume, program, name, number, whom,
                    mpirun_args, status)

    report.case("SIGTERM to both ranks at any moment", stop_at_any_moment, program,
                200 if arguments.full else 6)
    layouts = [(1, 1), (2, 1, "train.activation_checkpointing=block"),
               (2, 2, "train.accumulation=4"), (4, 2, "train.accumulation=1")]
    report.case("4 ranks to other layouts", other_layouts, program, layouts)
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
