#!/usr/bin/env bash
# adagate against the newest PyTorch on the CPU; scripts/bench/vs_pytorch.sh --help tells the
# options. Its own Python environment is made at --venv PATH (default: the user's cache) on the
# first run; --upgrade fetches the newest PyTorch into an existing one.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${XDG_CACHE_HOME:-$HOME/.cache}/adagate/pytorch-venv
upgrade=no
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --venv) venv=${2:?--venv needs a path}; shift 2 ;;
    --venv=*) venv=${1#--venv=}; shift ;;
    --upgrade) upgrade=yes; shift ;;
    -h|--help) sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"; arguments+=(--help); shift ;;
    *) arguments+=("$1"); shift ;;
  esac
done

python=$venv/bin/python
if ! [ -x "$python" ]; then
  python3 -m venv "$venv" || {
    echo "vs_pytorch: cannot make $venv; install python3-venv or give --venv PATH" >&2; exit 1; }
fi
packages="torch numpy safetensors xxhash"
if [ "$upgrade" = yes ] || ! "$python" -c "import ${packages// /, }" 2>/dev/null; then
  "$python" -m pip install --quiet --upgrade pip
  "$python" -m pip install --quiet --upgrade $packages
fi
exec "$python" "$here/vs_pytorch.py" ${arguments[@]+"${arguments[@]}"}
