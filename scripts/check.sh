#!/usr/bin/env bash
# All checks that need no build: layering, sizes, format, code on the pages, listed faults.
# Usage: scripts/check.sh [--fix]   (--fix formats the sources and brings the pages up to date)
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$REPO_ROOT" || exit 1

status=0
layering=() format=() howto=()
case ${1:-} in
  --fix) layering=(--write-docs) format=(--fix) howto=(--write) ;;
  "") ;;
  *) die "unknown option $1; usage: scripts/check.sh [--fix]" ;;
esac
python3 -B scripts/check_layering.py "${layering[@]}" || status=1
python3 -B scripts/check_howto.py "${howto[@]}" || status=1
python3 -B scripts/check_size.py || status=1
scripts/check_format.sh "${format[@]}" || status=1
python3 -B scripts/mutation_test.py --check || status=1
python3 -B tests/checks/test_checks.py || status=1
python3 -B tests/checks/test_gpu_scripts.py || status=1
exit $status
