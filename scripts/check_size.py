#!/usr/bin/env python3
"""Checks that files, functions and lines stay small enough to read.

Files up to 600 lines, functions up to 80 (kernels under core/ops/cpu and core/ops/cuda 120), lines
up to 100 columns. Exit 1 with file:line for each that is longer.
"""
import argparse
import ast
import pathlib
import re
import sys

FILE_LINES, FUNCTION_LINES, KERNEL_LINES, COLUMNS = 600, 80, 120, 100
KERNEL_FOLDERS = ("core/ops/cpu/", "core/ops/cuda/")
CPP = {".h", ".cpp", ".cu", ".cuh"}
OTHER = {".py", ".sh", ".cmake"}
SKIPPED_FOLDERS = {"build", "runs", ".git", ".cache", ".gpu", "__pycache__"}

# What is no code for the brace counter: comments, strings, characters, preprocessor lines.
NOISE = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.S | re.M)
ACCESS = re.compile(r"^\s*(?:public|protected|private)\s*:(?!:)", re.M)
SCOPE = re.compile(r"^(?:template\s*<.*>\s*)?(?:inline\s+)?"
                   r"(?:namespace\b|class\b|struct\b|union\b|extern\b\s*$)", re.S)


def blank(match):
    return re.sub(r"[^\n]", " ", match.group())


def closing_brace(code, start):
    """Index of the brace that closes the one at `start`, or the end of the text."""
    depth = 0
    for match in re.compile(r"[{}]").finditer(code, start):
        depth += 1 if match.group() == "{" else -1
        if depth == 0:
            return match.start()
    return len(code) - 1


def is_member_initialiser(header):
    """True for `Thing(int n) : size_` before a brace: a member's brace, not the body's."""
    return re.search(r"\)\s*(?:noexcept\s*)?:[^:]", header) and re.search(r"[\w>]\s*$", header)


def cpp_functions(text):
    """(first line, number of lines) of each function defined at namespace or class scope."""
    code = ACCESS.sub(blank, NOISE.sub(blank, text))
    start, parens = 0, 0  # start of the declaration being read
    position = 0
    while position < len(code):
        c = code[position]
        if c == "(":
            parens += 1
        elif c == ")":
            parens -= 1
        elif c == "{" and parens > 0:
            position = closing_brace(code, position)
        elif c == "{":
            header = code[start:position].strip()
            end = closing_brace(code, position)
            if SCOPE.match(header):
                start = position + 1
            elif is_member_initialiser(header):
                position = end
            else:
                if "(" in header and not header.endswith(("=", ",", "(")):
                    begin = start + len(code[start:position]) - len(code[start:position].lstrip())
                    yield code.count("\n", 0, begin) + 1, code.count("\n", begin, end) + 1
                start, position = end + 1, end
        elif c in ";}" and parens == 0:
            start = position + 1
        position += 1


def python_functions(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.end_lineno - node.lineno + 1


def check_file(path, name):
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    if len(lines) > FILE_LINES:
        yield 1, f"{len(lines)} lines, at most {FILE_LINES} in a file"
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS:
            yield number, f"{len(line)} columns, at most {COLUMNS}"
    functions = ()
    if path.suffix in CPP:
        functions = cpp_functions(text)
    elif path.suffix == ".py":
        functions = python_functions(text)
    limit = KERNEL_LINES if name.startswith(KERNEL_FOLDERS) else FUNCTION_LINES
    for number, count in functions:
        if count > limit:
            yield number, f"function of {count} lines, at most {limit}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parent.parent)
    root = parser.parse_args().root
    files, problems = 0, []
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if SKIPPED_FOLDERS & set(relative.parts) or not path.is_file():
            continue
        if path.suffix in CPP | OTHER or path.name == "CMakeLists.txt":
            files += 1
            problems += [f"{relative}:{n}: {why}" for n, why in check_file(path, str(relative))]
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"size: {files} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
