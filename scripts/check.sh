#!/usr/bin/env bash
# All checks that need no build: layering, sizes, format, and the tests of these checks.
# Usage: scripts/check.sh [--fix]   (--fix formats the sources and rewrites the generated table)
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$REPO_ROOT" || exit 1

status=0
layering=() format=()
case ${1:-} in
  --fix) layering=(--write-docs) format=(--fix) ;;
  "") ;;
  *) die "unknown option $1; usage: scripts/check.sh [--fix]" ;;
esac
python3 -B scripts/check_layering.py "${layering[@]}" || status=1
python3 -B scripts/check_size.py || status=1
scripts/check_format.sh "${format[@]}" || status=1
python3 -B tests/checks/test_checks.py || status=1
exit $status
