#!/usr/bin/env python3
"""Checks that the code on the pages of docs/ is the code that the tests compile.

A block is bound to a file, or to a region of one between the lines `// [name]` and `// [end]`:

    <!-- code: tests/howto/core/ops/relu_squared.h -->    (or path.cpp#name)
    ```cpp
    ...
    ```

Exit 1 for each block that differs; `--write` puts the code into the pages. Every C++ block of a
how-to page must be bound.
"""
import argparse
import pathlib
import re
import sys
import textwrap

BOUND = re.compile(r"<!-- code: (\S+?)(?:#(\w+))? -->\n```(\w+)\n(.*?)```\n", re.S)
UNBOUND = re.compile(r"(?<!-->\n)```cpp\n")


def region(text, name):
    """The lines between `// [name]` and the next `// [end]`, unindented; None when absent."""
    match = re.search(rf"^[ \t]*// \[{name}\]\n(.*?)^[ \t]*// \[end\]", text, re.S | re.M)
    return textwrap.dedent(match.group(1)) if match else None


def check_page(root, page, write):
    problems = []

    def replacement(match):
        path, name, language, shown = match.groups()
        line = text.count("\n", 0, match.start()) + 1
        where = f"{page.relative_to(root)}:{line}"
        if not (root / path).is_file():
            problems.append(f"{where}: {path} does not exist")
            return match.group()
        code = (root / path).read_text(encoding="utf-8")
        if name:
            code = region(code, name)
        if code is None:
            problems.append(f"{where}: {path} has no region [{name}]")
            return match.group()
        if code != shown and not write:
            problems.append(f"{where}: differs from {path}; run scripts/check_howto.py --write")
        label = f"{path}#{name}" if name else path
        return f"<!-- code: {label} -->\n```{language}\n{code}```\n"

    text = page.read_text(encoding="utf-8")
    updated = BOUND.sub(replacement, text)
    if write and updated != text:
        page.write_text(updated, encoding="utf-8")
    if page.parent.name == "howto":
        for match in UNBOUND.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            problems.append(f"{page.relative_to(root)}:{line}: C++ that no test compiles")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parent.parent)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    pages = sorted((args.root / "docs").rglob("*.md"))
    problems = [p for page in pages for p in check_page(args.root, page, args.write)]
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"howto: {len(pages)} pages, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
