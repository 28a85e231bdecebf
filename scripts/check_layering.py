#!/usr/bin/env python3
"""Checks every #include against the layering table below, which docs/architecture.md shows, and
every forward declaration: a type of a folder that may not be included may not be named either.

Exit 1 with file:line for each edge that the table does not allow. `--write-docs` puts the table
into docs/architecture.md between its markers; without it the page is compared with the table.
"""
import argparse
import pathlib
import re
import sys

# folder, what it holds, what it may include of ours: folders, or single headers.
LAYERS = [
    ("core", "errors, log, random numbers; device, storage, tensor; tape; ops and their kernels; "
             "parameters and modules; optimizer; tensor files", []),
    ("parallel", "Communicator (self, threads, MPI), mesh of groups, gradient reducer", ["core"]),
    ("data", "tokenizers, token files, dataset, sampler, batch, prefetch", ["core"]),
    ("layers", "where tokens are; linear, embedding, norms, attention, feed-forward, transformer "
               "block",
     ["core"]),
    ("moe", "gate, gating policies, routing plan, dispatcher, experts, MoE layer, balance losses, "
            "routing statistics",
     ["core", "layers", "parallel/communicator.h", "parallel/mesh.h"]),
    ("bench", "kernels, MoE layer and communicator against the machine's limits",
     ["core", "layers", "moe", "parallel"]),
    ("models", "whole architectures; text from a model, token by token; weights as files",
     ["core", "layers", "moe", "parallel/agree.h", "parallel/communicator.h", "parallel/mesh.h"]),
    ("train", "trainer, observers, schedules, checkpoints, metrics",
     ["core", "parallel", "data", "layers", "moe", "models"]),
    ("apps", "the `adagate` program: one file per subcommand",
     ["core", "parallel", "data", "layers", "moe", "bench", "models", "train"]),
]

# Inside core each level sees the levels before it; folders on one level don't see each other.
CORE_LEVELS = [["base"], ["device"], ["tensor"], ["autograd"], ["ops"], ["nn"], ["optim"], ["io"]]

# Headers that stay behind one seam: include pattern -> where it may stand.
SEAMS = [
    (re.compile(r"mpi\.h$"), ["parallel/", "tests/"]),
    (re.compile(r"nccl\.h$"), ["parallel/nccl"]),
    (re.compile(r"(cuda|cublas|cub/|cooperative_groups|mma\.h)"),
     ["core/device/", "core/ops/cuda/", "core/base/", "parallel/nccl", "tests/cuda/"]),
    (re.compile(r"(oneapi/dnnl|dnnl|Eigen/)"), ["core/ops/cpu/", "core/device/"]),
    (re.compile(r"CLI/"), ["apps/"]),
    # What trains and evaluates knows a model through its task.
    (re.compile(r"models/decoder\.h$"), ["models/", "train/tasks/", "tests/"]),
]

CODE_SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}
INCLUDE = re.compile(r'\s*#\s*include\s*(["<])([^">]+)[">]')
# At the start of a line: types of the namespace adagate itself.
DECLARED = re.compile(r"(?:class|struct|enum(?: class)?) (\w+)(?: : \w+)?;")
DEFINED = re.compile(r"(?:class|struct|enum(?: class)?) (\w+)(?: final)?(?: :[^;]*)?(?: \{|$)")
BEGIN, END = "<!-- layering table: begin -->", "<!-- layering table: end -->"


def allowed_of(folder):
    return next(allowed for name, _, allowed in LAYERS if name == folder)


def order():
    return [name for name, _, _ in LAYERS]


def core_level(subfolder):
    return next((i for i, names in enumerate(CORE_LEVELS) if subfolder in names), None)


def check_core_edge(source, target):
    """Why core may not include this of itself, or None. Both are paths from the root."""
    if len(source.parts) < 3 or len(target.parts) < 3:
        return "every file of core stands in one of its subfolders"
    a, b = source.parts[1], target.parts[1]
    level_a, level_b = core_level(a), core_level(b)
    for name, level in ((a, level_a), (b, level_b)):
        if level is None:
            return f"core/{name} has no place in the order of core's subfolders"
    if a != b and level_a <= level_b:
        return f"core/{a} may not include core/{b}"
    return None


def check_edge(source, target):
    """Why `source` may not include `target` (paths from the root), or None when it may."""
    top, wanted = source.parts[0], target.parts[0]
    if top == "tests":
        mirrored = source.parts[1].split("_")[0] if len(source.parts) > 2 else ""  # parallel_mpi
        if wanted == "tests":
            if target.parts[1] not in ("support", mirrored, source.parts[1]):
                return f"tests/{mirrored} may include only tests/support and itself of tests"
            return None
        if mirrored not in order():  # support, howto, fuzz, ...: they see everything
            return None
        if order().index(wanted) > order().index(mirrored):
            return f"tests/{mirrored} may not include {wanted}, which stands above {mirrored}"
        return None
    if wanted == top:
        return check_core_edge(source, target) if top == "core" else None
    allowed = allowed_of(top)
    if wanted in allowed or str(target) in allowed:
        return None
    return f"{top} may include only: {', '.join([top] + allowed)}"


def homes_of_types(root):
    """{name of a type: the files that define it}."""
    homes = {}
    for path in code_files(root):
        for line in path.read_text(encoding="utf-8").splitlines():
            if match := DEFINED.match(line):
                homes.setdefault(match[1], set()).add(path.relative_to(root))
    return homes


def check_declaration(source, name, homes):
    """Why `source` may not declare the type `name`, or None. Inside one folder it may."""
    homes = sorted(homes.get(name, ()))
    reasons = [f"{name} of {home}: {why}" for home in homes
               if home.parts[0] != source.parts[0] and (why := check_edge(source, home))]
    return reasons[0] if homes and len(reasons) == len(homes) else None


def check_file(root, path, types):
    """Problems of one file as (line number, text)."""
    source = path.relative_to(root)
    homes_of_files = [root]
    # The how-to pages' code lives in a tree of its own that mirrors the project's.
    if source.parts[:2] == ("tests", "howto"):
        homes_of_files.append(root / "tests" / "howto")
        if source.parts[2] in order():
            source = pathlib.PurePosixPath(*source.parts[2:])
    folders = set(order()) | {"tests"}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if match := DECLARED.match(line):
            if reason := check_declaration(source, match[1], types):
                yield number, reason
        match = INCLUDE.match(line)
        if not match:
            continue
        bracket, name = match.groups()
        for pattern, homes in SEAMS:
            if pattern.match(name) and not any(str(source).startswith(h) for h in homes):
                yield number, f"<{name}> may be included only under {', '.join(homes)}"
        target = pathlib.PurePosixPath(name)
        if target.parts[0] in folders:
            if not any((home / name).is_file() for home in homes_of_files):
                yield number, f"{name} does not exist"
            elif reason := check_edge(source, target):
                yield number, f"{name}: {reason}"
        elif bracket == '"':
            yield number, f'"{name}" is not a path from the repository root'


def code_files(root):
    for folder in order() + ["tests"]:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in CODE_SUFFIXES and path.is_file():
                yield path


def table():
    rows = ["| folder | holds | may include (of ours) |", "|---|---|---|"]
    for name, holds, allowed in LAYERS:
        may = ", ".join(f"`{a}`" for a in allowed) or "nothing"
        rows.append(f"| `{name}` | {holds} | {may} |")
    levels = " < ".join(", ".join(f"`{n}`" for n in names) for names in CORE_LEVELS)
    rows += ["", f"Inside `core`: {levels}.", "",
             "`tests/X` may include what stands up to `X` in this order, and `tests/support`.", "",
             "| include | only under |", "|---|---|"]
    for pattern, homes in SEAMS:
        shown = pattern.pattern.replace("\\", "").replace("$", "").replace("|", "\\|")
        rows.append(f"| `{shown}` | {', '.join(f'`{h}`' for h in homes)} |")
    return "\n".join(rows)


def check_docs(page, write):
    """Problems of the page that shows the table; with `write` the page is brought up to date."""
    if not page.is_file():
        return [f"{page.name}: missing; it must show the layering table"]
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        return [f"{page.name}: needs the markers '{BEGIN}' and '{END}' once each"]
    head, rest = text.split(BEGIN)
    shown, tail = rest.split(END)
    wanted = f"\n{table()}\n"
    if shown == wanted:
        return []
    if write:
        page.write_text(head + BEGIN + wanted + END + tail, encoding="utf-8")
        return []
    return [f"{page.name}: its layering table is out of date; run scripts/check_layering.py "
            "--write-docs"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parent.parent)
    parser.add_argument("--write-docs", action="store_true")
    args = parser.parse_args()
    files, problems = 0, []
    types = homes_of_types(args.root)
    for path in code_files(args.root):
        files += 1
        problems += [f"{path.relative_to(args.root)}:{n}: {why}"
                     for n, why in check_file(args.root, path, types)]
    problems += check_docs(args.root / "docs" / "architecture.md", args.write_docs)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"layering: {files} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
