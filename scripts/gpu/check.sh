#!/usr/bin/env bash
# Checks adagate on this machine's GPU with what scripts/gpu/pack.sh has packed, one part at a time,
# each in less than five minutes. OUT/report.json, OUT/report.md and a log of each part grow as the
# steps end; a step whose tool is missing says so and is counted as skipped.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  cat <<'USAGE'
usage: scripts/gpu/check.sh correctness|speed OUT [OPTIONS]
  correctness  ops, training, evaluation, ranks, sanitizers: against the CPU's figures
  speed        kernels, the MoE layer, GPT-2 124M beside PyTorch
  OUT          folder of the report, shared by both parts
  --minutes N  time of the whole part (default 4.8); steps that don't fit are skipped
  --only TEXT  only steps whose name holds TEXT; may be repeated
  --steps N    of each training, at most: fewer for a first look
  --patience X each step may take X times as long as is meant for it (default 1)
USAGE
}

case ${1:-} in
  correctness | speed) ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac
[ $# -ge 2 ] || { usage >&2; exit 2; }
command -v python3 >/dev/null || { echo "check: python3 is needed" >&2; exit 1; }
# shellcheck source=scripts/gpu/env.sh
source "$here/env.sh"
if ! [ -f "$ADAGATE_GPU_PACK/pack.json" ]; then
  echo "check: there is no pack in $ADAGATE_GPU_PACK: make it with scripts/gpu/pack.sh" >&2
  exit 1
fi
status=0
python3 -B "$here/check.py" "$@" || status=$?
python3 -B "$here/report.py" "$2" || status=1
exit $status
