#!/usr/bin/env bash
# Builds adagate with MPICH beside the ordinary build (build/cpu-release, Open MPI), without
# warnings, runs the communicator tests and compares what both train. Changes no system default.
#   scripts/test_mpich.sh --reason    prints why it can't run here, nothing when it can
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$REPO_ROOT"

reason() {
  local tool
  for tool in mpicc.mpich mpiexec.mpich mpirun.openmpi; do
    command -v $tool >/dev/null || { echo "no $tool (packages mpich, libmpich-dev)"; return; }
  done
}
if [ "${1:-}" = --reason ]; then reason; exit; fi
why=$(reason)
[ -z "$why" ] || die "$why"

folder=build/mpich log=build/logs/mpich.log
mkdir -p build/logs
cmake --preset cpu-release -B "$folder" -DADAGATE_BUILD_TESTS=ON \
  -DMPI_C_COMPILER="$(command -v mpicc.mpich)" \
  -DMPIEXEC_EXECUTABLE="$(command -v mpiexec.mpich)" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
cmake --build "$folder" -j "$(build_jobs)" --target adagate mpi_program >>"$log" 2>&1 ||
  { tail -50 "$log" >&2; exit 1; }
if grep -n 'warning:' "$log" >&2; then die "the build with MPICH warns (log: $log)"; fi

export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1
for run in "1 suite" "2 suite" "4 suite" "2 plain"; do
  read -r ranks mode <<<"$run"
  mpiexec.mpich -n "$ranks" "$folder/bin/mpi_program" "$mode" >"$log" 2>&1 ||
    { cat "$log" >&2; die "mpi_program $mode failed on $ranks ranks of MPICH"; }
  echo "ok    communicator, $mode, $ranks ranks"
done
python3 -B tests/parallel_mpi/same_bits.py mpirun.openmpi build/cpu-release/bin/adagate \
  mpiexec.mpich "$folder/bin/adagate"
