#!/usr/bin/env bash
# Installs what the tests need, builds, and runs them all: checks, unit tests, tests under mpirun,
# sanitizers, fuzz targets. Ends with one line per stage; exit 1 when any failed.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
  cat <<'USAGE'
usage: scripts/test.sh [--full] [--no-install] [--filter REGEX]
  --full          the long forms: all tests under the sanitizers, minutes of fuzzing, 100 kills,
                  a million random strings, simulated hosts, MPICH, every planted
                  fault (hours on a small machine)
  --no-install    install nothing; fail when something is missing
  --filter REGEX  build all, then run only the tests whose name matches (see ctest -R)
USAGE
}

full=no install=yes filter=
while [ $# -gt 0 ]; do
  case $1 in
    --full) full=yes ;;
    --no-install) install=no ;;
    --filter) [ $# -ge 2 ] || die "--filter needs a regular expression"; filter=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "unknown option $1" ;;
  esac
  shift
done
cd "$REPO_ROOT" || exit 1
jobs=$(build_jobs)
log_folder=$REPO_ROOT/build/logs
mkdir -p "$log_folder"

# Ranks that wait for each other don't spin on a busy machine.
export OMP_WAIT_POLICY=passive
# Tests that have a long form take it when this is 1.
export ADAGATE_TEST_FULL=$([ $full = yes ] && echo 1 || echo 0)
# mpirun refuses root and more ranks than cores unless told.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1

install_packages() {
  local options=(--tests)
  if [ $full = yes ]; then options+=(--full); fi
  if [ $install = no ]; then options+=(--check); fi
  bash scripts/install_deps.sh "${options[@]}"
}

# build PRESET TARGETS...: quiet unless it fails.
build() {
  local preset=$1 log=$log_folder/build-$1.log
  shift
  # Of CUDA one architecture: compiling is what is tested.
  configure "$preset" -DADAGATE_BUILD_TESTS=ON -DCMAKE_CUDA_ARCHITECTURES=90-real || return 1
  cmake --build "build/$preset" -j "$jobs" --target "$@" >"$log" 2>&1 && { tail -1 "$log"; return; }
  grep -E -A15 'FAILED|error:' "$log" | head -100 >&2
  warn "the build failed (log: $log)"
  return 1
}

# run_ctest PRESET ARGS...
run_ctest() {
  local preset=$1 prefix=()
  shift
  # g++'s thread sanitizer ends at once where the kernel spreads addresses wider than it knows.
  if [ "$preset" = cpu-tsan ] && setarch -R true 2>/dev/null; then prefix=(setarch -R); fi
  "${prefix[@]}" ctest --test-dir "build/$preset" --output-on-failure --no-tests=error "$@" |
    tee "$log_folder/ctest-$preset.log"
}

# The installed package, used by a project of its own.
test_install() {
  local prefix=$REPO_ROOT/build/installed log=$log_folder/install.log
  rm -rf "$prefix" "$REPO_ROOT/build/consumer"
  { cmake --install build/cpu-release --prefix "$prefix" &&
    cmake -G Ninja -S tests/install -B build/consumer -DCMAKE_PREFIX_PATH="$prefix" &&
    cmake --build build/consumer; } >"$log" 2>&1 || { tail -30 "$log" >&2; return 1; }
  build/consumer/consumer
}

# The tokenizer beside Hugging Face's `tokenizers`: all real text that scripts/fetch_data.sh has
# brought, every code point, a million random strings.
python=${ADAGATE_PYTHON:-python3} data=${ADAGATE_DATA:-$REPO_ROOT/datasets}
compare_tokenizers() {
  local files=() file
  for file in "$data"/text/wikitext-2/{train,valid,test}.txt \
    "$data"/translation/{train,val,test_2016_flickr,test_2017_flickr}.{de,en}; do
    if [ -f "$file" ]; then files+=("$file"); fi
  done
  "$python" -B tests/reference/tokenizer_parity.py --tool build/cpu-release/bin/tokenize_lines \
    --gpt2 "$data/tokenizers/gpt2" --files "${files[@]}" --random 1000000 --every-code-point
}

# stage_unless REASON NAME CMD...: skips the stage where there is a reason.
stage_unless() {
  local reason=$1 name=$2
  shift 2
  if [ -n "$reason" ]; then skip "$name" "$reason"; else stage "$name" "$@"; fi
}

# sanitize PRESET CTEST_REGEX [TARGETS]: builds the test programs and runs those that match.
sanitize() {
  local preset=$1 regex=$2
  local targets=(all)
  if [ $full = no ]; then read -ra targets <<<"$3"; fi
  export ASAN_OPTIONS=abort_on_error=0:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1
  export LSAN_OPTIONS=suppressions=$REPO_ROOT/tests/support/lsan.supp:print_suppressions=0
  export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
  build "$preset" "${targets[@]}" && run_ctest "$preset" -R "$regex"
}

# The tests whose ranks are threads of one process.
thread_rank_tests='^(parallel|moe|models|train)$'

finish() {
  print_summary || { printf '\nscripts/test.sh: FAILED\n'; exit 1; }
  printf '\nscripts/test.sh: all passed\n'
  exit 0
}

stage "packages" install_packages || finish
if [ -n "$filter" ]; then
  stage "build" build cpu-release all &&
    stage "tests matching '$filter'" run_ctest cpu-release -R "$filter"
  finish
fi
stage "checks" scripts/check.sh
stage "build" build cpu-release all || finish
stage "tests" run_ctest cpu-release
stage "instructions of a step" python3 -B tests/perf/instruction_guard.py
stage "headers stand alone" build cpu-release adagate_header_check
stage "installed package" test_install
fuzz_seconds=$([ $full = yes ] && echo 60 || echo 5)  # each target
if command -v clang++-14 >/dev/null || command -v clang++ >/dev/null; then
  stage "fuzzing" scripts/fuzz.sh "$fuzz_seconds"
else
  skip "fuzzing" "no clang++"
fi
if [ $full = yes ]; then
  if ! "$python" -c 'import tokenizers' 2>/dev/null; then
    skip "tokenizer beside Hugging Face's" "no module tokenizers (ADAGATE_PYTHON: another Python)"
  elif [ ! -d "$data/tokenizers/gpt2" ]; then
    skip "tokenizer beside Hugging Face's" "no $data/tokenizers/gpt2 (scripts/fetch_data.sh)"
  else
    stage "tokenizer beside Hugging Face's" compare_tokenizers
  fi
  stage_unless "$(python3 -B tests/hosts/hosts_test.py --reason)" "simulated hosts" \
    python3 -B tests/hosts/hosts_test.py build/cpu-release/bin/{adagate,mpi_program}
  stage_unless "$(scripts/test_mpich.sh --reason)" "built with MPICH" scripts/test_mpich.sh
  stage "planted faults" python3 -B scripts/mutation_test.py --jobs "$jobs"
  stage "address and undefined sanitizers" sanitize cpu-asan .
  stage "thread sanitizer" sanitize cpu-tsan "$thread_rank_tests"
else
  stage "planted faults (sample)" python3 -B scripts/mutation_test.py --sample --jobs "$jobs"
  stage "address and undefined sanitizers" sanitize cpu-asan '^(core|data|moe)$' \
    "test_core test_data test_moe"
  stage "thread sanitizer" sanitize cpu-tsan '^parallel$' test_parallel
fi
finish
