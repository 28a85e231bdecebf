#!/usr/bin/env python3
"""Data that is written over while a run reads it: changed_data_test.py PROGRAM

A token file cut or replaced in place, under one rank and under two: one message that names the file
and what to do, a status that is not 0, and the last checkpoint stands.
"""
import argparse
import sys

from harness import (MPIRUN, Program, Report, Scratch, checkpoints, finish, last_step,
                     read_checkpoint, wait_for)


def overwritten(program, ranks, change, words):
    with Scratch(290_000) as scratch:
        tokens = scratch.path / "live.tokens"
        code, output, _ = program.run(0, "tokenize", scratch.path / "text.txt", "--output", tokens)
        assert code == 0, output
        config = scratch.config("run", length="1000000s", every="5s")
        process = program.start(ranks, "train", config, "--set", f"data.train={tokens}")
        run = scratch.path / "run"
        wait_for(lambda: checkpoints(run) and last_step(run) >= 7, "first checkpoint", process)
        change(tokens)
        code, output, took = finish(process, 60)
        assert code not in (0, 135) and code > 0, f"status {code}:\n{output}"
        errors = [line for line in output.splitlines() if ": error: " in line]
        assert len(errors) == 1 and all(word in errors[0] for word in [str(tokens), *words]), output
        kept = checkpoints(run)
        assert kept, "no checkpoint is left"
        read_checkpoint(kept[max(kept)])
        return f"status {code} after {took:.1f} s"


def cut(tokens):
    with open(tokens, "r+b") as file:
        file.truncate(5000)


def write_other(tokens):
    """Of the same size."""
    data = bytearray(tokens.read_bytes())
    data[1000:2000] = bytes(1000)
    with open(tokens, "r+b") as file:
        file.write(data)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    program, report = Program(parser.parse_args().program), Report()
    for ranks in (0, 2) if MPIRUN else (0,):
        report.case(f"a token file is cut, {ranks or 'no'} ranks of mpirun", overwritten, program,
                    ranks, cut, ["was cut from", "by renaming (mv)"])
        report.case(f"a token file becomes another, {ranks or 'no'} ranks of mpirun", overwritten,
                    program, ranks, write_other, ["was changed while it was in use"])
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
