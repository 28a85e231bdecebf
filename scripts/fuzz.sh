#!/usr/bin/env bash
# Builds the fuzz targets of tests/fuzz with clang and runs each for some seconds, from the corpus
# in the repository and what earlier runs found (build/fuzz/corpus). Exit 1 on the first finding.
# Usage: scripts/fuzz.sh [SECONDS [TARGET]...]   (default 20 s, all targets)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$REPO_ROOT"
seconds=${1:-20}
shift || true

compiler=$(command -v clang++-14 || command -v clang++ || true)
[ -n "$compiler" ] || die "needs clang++ with libFuzzer: scripts/install_deps.sh --tests"
folder=build/fuzz
mkdir -p "$folder"
log=$folder/build.log
{ cmake -G Ninja -S tests/fuzz -B "$folder" -DCMAKE_CXX_COMPILER="$compiler" \
    -DCMAKE_C_COMPILER="${compiler/++/}" &&
  cmake --build "$folder" -j "$(build_jobs)"; } >"$log" 2>&1 ||
  { tail -30 "$log" >&2; die "the fuzz targets don't build (log: $log)"; }

targets=("$@")
if [ ${#targets[@]} = 0 ]; then
  for source in tests/fuzz/fuzz_*.cpp; do
    targets+=("$(basename "$source" .cpp | sed s/^fuzz_//)")
  done
fi
# A short run, as in CI, takes the same way each time: what it finds belongs to the change.
seed=0
if [ "$seconds" -le 5 ]; then seed=1; fi

# fuzz TARGET: one run; prints how many inputs it took, or what it found.
fuzz() {
  local target=$1
  mkdir -p "$folder/corpus/$target" "$folder/findings"
  # -rss_limit_mb also catches sizes in a header that are believed before they are checked.
  if ! "$folder/fuzz_$target" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=1024 \
      -max_len=8192 -seed="$seed" -artifact_prefix="$folder/findings/$target-" \
      -print_final_stats=1 "$folder/corpus/$target" "tests/fuzz/corpus/$target" \
      >"$folder/$target.log" 2>&1; then
    tail -40 "$folder/$target.log" >&2
    warn "fuzz_$target found an input that breaks: $(ls -t "$folder/findings/$target-"* | head -1)"
    return 255  # xargs starts no other
  fi
  printf '%-12s %s inputs in %s s, no finding\n' "$target" \
    "$(sed -n 's/^stat::number_of_executed_units: *//p' "$folder/$target.log")" "$seconds"
}
export -f fuzz warn
export folder seconds seed
# One target keeps one core busy.
printf '%s\n' "${targets[@]}" | xargs -n 1 -P "$(build_jobs)" bash -c 'fuzz "$1"' fuzz
