#!/usr/bin/env bash
# From a fresh clone to a trained model: installs packages, builds, trains a mixture-of-experts
# language model on two ranks, compares its loss with what counting letters gives, lets it write.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
  cat <<'USAGE'
usage: scripts/quickstart.sh [--no-install] [--set KEY=VALUE]...
  --no-install     install nothing; fail when something is missing
  --set KEY=VALUE  change the run (see docs/configuration.md), e.g. --set train.length=200s
USAGE
}

install=yes
settings=()
while [ $# -gt 0 ]; do
  case $1 in
    --no-install) install=no ;;
    --set) [ $# -ge 2 ] || die "--set needs KEY=VALUE"; settings+=(--set "$2"); shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "unknown option $1" ;;
  esac
  shift
done
cd "$REPO_ROOT"
run=runs/quickstart
text=data/samples/shakespeare.txt
adagate=build/cpu-release/bin/adagate

install_packages() {
  local options=()
  if [ $install = no ]; then options=(--check); fi
  bash scripts/install_deps.sh "${options[@]}"
}

build_program() {
  local log=$REPO_ROOT/build/quickstart-build.log options=()
  # A build folder that has the tests keeps them; a new one does without.
  [ -f build/cpu-release/CMakeCache.txt ] || options=(-DADAGATE_BUILD_TESTS=OFF)
  configure cpu-release "${options[@]}" || return 1
  cmake --build build/cpu-release --target adagate -j "$(build_jobs)" >"$log" 2>&1 ||
    { grep -E -A15 'FAILED|error:' "$log" | head -60 >&2; die "the build failed (log: $log)"; }
  echo "built $adagate"
}

train() {
  rm -rf "$run"  # of an earlier quickstart; the run would go on from its last checkpoint
  echo "mpirun -n 2 $adagate train configs/quickstart.yaml ${settings[*]}"
  mpirun_n 2 "$adagate" train configs/quickstart.yaml --output "$run" "${settings[@]}" </dev/null
}

generate() {
  "$adagate" generate "$run" --prompt "First Citizen:" --tokens 300 </dev/null
}

on_failure() { print_summary; die "the quickstart failed"; }
stage "packages" install_packages || on_failure
stage "build" build_program || on_failure
stage "train on 2 ranks" train || on_failure
stage "loss against letter frequencies" \
  bash scripts/quickstart_report.sh "$run/metrics.jsonl" "$text" || on_failure
stage "sample" generate || on_failure
print_summary
printf '\nThe run is in %s: metrics.jsonl, config.yaml, checkpoints.\n' "$run"
