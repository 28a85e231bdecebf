# Shared by the scripts of this folder: source it, don't run it.
# Stages with their time, root rights, mpirun's flags on this machine, the configure-and-build step.

REPO_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE_DIR=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/adagate

# Clones in different places share compiled objects.
export CCACHE_BASEDIR=$REPO_ROOT CCACHE_NOHASHDIR=1

# Tools that install_deps.sh had to install outside the package manager (a newer CMake).
[ -d "$CACHE_DIR/tools/bin" ] && PATH=$CACHE_DIR/tools/bin:$PATH

say() { printf '\n==> %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# as_root CMD...: runs CMD as root, through sudo where needed.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    sudo "$@"
  else
    die "root rights are needed for: $*
  Run that command as root (or configure sudo), then start this script again with --no-install."
  fi
}

# Names, times and outcomes of the stages that ran, for the summary.
STAGE_NAMES=() STAGE_TIMES=() STAGE_CPU=() STAGE_RESULTS=()

# count_cpu: sets CPU_SECONDS to what the commands of this script have used on all cores; wall time
# alone says little on a machine that others use too.
count_cpu() {
  local file
  file=$(mktemp)
  times >"$file"  # not in a subshell, which would count its own children
  CPU_SECONDS=$(awk 'NR == 2 {
    for (i = 1; i <= 2; ++i) { split($i, t, /[ms]/); sum += t[1] * 60 + t[2] }
    printf "%d", sum }' "$file")
  rm -f "$file"
}

# stage NAME CMD...: runs CMD, records its time and whether it passed; returns its status.
stage() {
  local name=$1 start cpu status=0
  shift
  say "$name"
  count_cpu
  start=$(date +%s) cpu=$CPU_SECONDS
  "$@" || status=$?
  STAGE_NAMES+=("$name") STAGE_TIMES+=($(($(date +%s) - start)))
  count_cpu
  STAGE_CPU+=($((CPU_SECONDS - cpu)))
  if [ $status = 0 ]; then STAGE_RESULTS+=("passed"); else STAGE_RESULTS+=("FAILED ($status)"); fi
  printf -- '--- %s: %s, %d s\n' "$name" "${STAGE_RESULTS[-1]}" "${STAGE_TIMES[-1]}"
  return $status
}

# skip NAME REASON: a stage that can't run here; the summary shows it.
skip() {
  say "$1: skipped, $2"
  STAGE_NAMES+=("$1") STAGE_TIMES+=(0) STAGE_CPU+=(0) STAGE_RESULTS+=("skipped: $2")
}

# print_summary: one line per stage; returns 1 when any failed.
print_summary() {
  local i status=0 total=0 cpu=0
  printf '\n%-44s %7s %7s  %s\n' stage seconds cpu result
  for i in "${!STAGE_NAMES[@]}"; do
    printf '%-44s %7d %7d  %s\n' "${STAGE_NAMES[i]}" "${STAGE_TIMES[i]}" "${STAGE_CPU[i]}" \
      "${STAGE_RESULTS[i]}"
    total=$((total + STAGE_TIMES[i])) cpu=$((cpu + STAGE_CPU[i]))
    case ${STAGE_RESULTS[i]} in FAILED*) status=1 ;; esac
  done
  printf '%-44s %7d %7d\n' total $total $cpu
  return $status
}

# mpirun_n RANKS CMD...: mpirun as this machine needs it (Open MPI refuses to run as root and to
# start more ranks than cores unless told).
mpirun_n() {
  local ranks=$1
  local -a flags=(--oversubscribe)
  shift
  if [ "$(id -u)" = 0 ]; then flags+=(--allow-run-as-root); fi
  mpirun "${flags[@]}" -n "$ranks" "$@"
}

# build_jobs: one compiler per core, and no more than one per GiB and a half of free memory.
build_jobs() {
  local cores memory_jobs
  cores=$(nproc)
  memory_jobs=$(awk '/MemAvailable/ {print int($2 / 1572864)}' /proc/meminfo 2>/dev/null ||
    echo "$cores")
  if [ "$memory_jobs" -lt 1 ]; then memory_jobs=1; fi
  echo $((cores < memory_jobs ? cores : memory_jobs))
}

# configure PRESET [CMAKE ARGS...]: its output goes to a log that is shown only when it fails.
configure() {
  local preset=$1 log
  shift
  mkdir -p "$REPO_ROOT/build"
  log=$REPO_ROOT/build/configure-$preset.log
  if ! (cd "$REPO_ROOT" && cmake --preset "$preset" "$@") >"$log" 2>&1; then
    cat "$log" >&2
    warn "cmake failed (log: $log); missing packages are installed by scripts/install_deps.sh"
    return 1
  fi
  grep -E '^-- (oneDNN|adagate)' "$log" || true
}
