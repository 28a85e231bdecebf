#!/usr/bin/env bash
# What matrix tiles (AMX) bring: kernels and MoE layer in bf16 with and without adagate's own use of
# them, alternating, as a Markdown table. (Products through oneDNN take the tiles in both.)
# Usage: scripts/bench/amx.sh [--rounds 3] [-- OPTIONS OF adagate bench]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$REPO_ROOT"

rounds=3
while [ $# -gt 0 ]; do
  case $1 in
    --rounds) [ $# -ge 2 ] || die "--rounds needs a number"; rounds=$2; shift ;;
    --) shift; break ;;
    -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
    *) die "unknown option $1" ;;
  esac
  shift
done
program=build/cpu-release/bin/adagate
[ -x $program ] || die "build first: cmake --preset cpu-release && cmake --build build/cpu-release"
grep -qw amx_bf16 /proc/cpuinfo || die "this processor has no AMX with bf16 products (amx_bf16)"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for round in $(seq "$rounds"); do
  for tiles in 0 1; do
    ADAGATE_AMX=$tiles $program bench --section kernels,moe --type bf16 \
      --json "$folder/$tiles-$round.json" "$@" >/dev/null
  done
done
grep -m1 'model name' /proc/cpuinfo | sed 's/.*: /processor: /'
python3 - "$folder" <<'PYTHON'
import json
import statistics
import sys
from pathlib import Path

runs = {tiles: [json.loads(p.read_text()) for p in sorted(Path(sys.argv[1]).glob(f"{tiles}-*"))]
        for tiles in "01"}
for table, title in (("peaks", "what"), ("kernels", "kernel"), ("moe", None)):
    rows = runs["1"][0].get(table, {}).get("rows", [])
    if not rows:
        continue
    figures = [key for key, value in rows[0].items() if isinstance(value, (int, float))]
    shown = "gflops" if "gflops" in figures else figures[0]
    print(f"\n| {table} | {shown} without | with | ratio |\n|---|---|---|---|")
    for i, row in enumerate(rows):
        name = " ".join(str(v) for v in row.values() if isinstance(v, str))

        def median(tiles):
            values = []
            for run in runs[tiles]:
                found = [r for r in run[table]["rows"]
                         if " ".join(str(v) for v in r.values() if isinstance(v, str)) == name]
                if found and found[0].get(shown) is not None:
                    values.append(found[0][shown])
            return statistics.median(values) if values else None

        old, new = median("0"), median("1")
        if new is not None:
            cells = ("-", f"{new:.4g}", "-") if old is None else (
                f"{old:.4g}", f"{new:.4g}", f"{new / old:.2f}")
            print(f"| {name} | " + " | ".join(cells) + " |")
PYTHON
