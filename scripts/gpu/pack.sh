#!/usr/bin/env bash
# Lays out .gpu/: what scripts/gpu/check.sh needs on a GPU machine on which nothing can be
# installed, below 40 MB. It holds the programs and the CUDA backend, Open MPI, every library that
# is neither glibc's nor NVIDIA's, and the CPU's figures to compare with. Copy the checkout with it.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

usage() {
  cat <<'USAGE'
usage: scripts/gpu/pack.sh [BUILD_DIR] [--out DIR] [--no-reference]
  BUILD_DIR       a build with the CUDA backend, without -march=native and without oneDNN, whose
                  library is larger than all else; default: build/gpu-pack, made and built here
  --out DIR       default .gpu
  --no-reference  leave out the figures of the CPU, which take some minutes
USAGE
}

build='' pack=$REPO_ROOT/.gpu reference=yes
while [ $# -gt 0 ]; do
  case $1 in
    --out) [ $# -ge 2 ] || die "--out needs a folder"; pack=$(realpath -m "$2"); shift ;;
    --no-reference) reference=no ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; die "unknown option $1" ;;
    *) [ -z "$build" ] || die "one BUILD_DIR, please"; build=$(realpath "$1") ;;
  esac
  shift
done
cd "$REPO_ROOT"
most_megabytes=40
programs=(adagate test_gpu gpu_ranks_program mpi_program)
plugins=(libadagate_cuda.so libadagate_nccl.so)

make_build() {
  local log=$REPO_ROOT/build/gpu-pack.log target known
  local -a targets=()
  configure gpu-pack
  known=$(cmake --build build/gpu-pack --target help)
  for target in adagate test_gpu gpu_ranks_program mpi_program adagate_cuda adagate_nccl; do
    if grep -q "^$target: phony" <<<"$known"; then targets+=("$target"); fi
  done
  cmake --build build/gpu-pack -j "$(build_jobs)" --target "${targets[@]}" >"$log" 2>&1 ||
    { grep -E -A15 'FAILED|error:' "$log" | head -60 >&2; die "the build failed (log: $log)"; }
}

# setting NAME: of the build's configuration.
setting() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"; }

check_build() {
  [ -x "$build/bin/adagate" ] || die "$build/bin/adagate is not there: build it first"
  [ "$(setting ADAGATE_NATIVE)" = OFF ] || die "$build is compiled for this machine's processor:
  configure it with -DADAGATE_NATIVE=OFF"
  [ "$(setting ADAGATE_ONEDNN)" = OFF ] ||
    warn "$build uses oneDNN: the pack may be larger than $most_megabytes MB"
}

copy_programs() {
  local name
  mkdir -p "$pack/bin"
  for name in "${programs[@]}" "${plugins[@]}"; do
    if [ -f "$build/bin/$name" ]; then
      install -m755 "$build/bin/$name" "$pack/bin/$name"
      strip --strip-unneeded "$pack/bin/$name"
    else
      warn "$name is not in $build/bin: its steps will be skipped"
    fi
  done
}

# The installed packages' files, beside us: found through OPAL_PREFIX (env.sh). Plug-ins for network
# fabrics and cluster schedulers need libraries that are not packed, and one machine needs none.
copy_mpi() {
  local path
  local wanted='/(mca_|pmix_mca_)[^/]*\.so$|^/usr/share/(openmpi|pmix)/|/bin/(orterun|orted)$'
  local fabrics='_(ucx|ofi|psm2?|openib|usnic|cuda|gridengine|slurm|tm|verbs|yalla|monitoring)\.so$'
  if ! dpkg -L openmpi-bin libopenmpi3 >/dev/null 2>&1; then
    warn "this machine's Open MPI is not Debian's: the GPU machine needs an mpirun of its own"
    return
  fi
  { dpkg -L openmpi-bin openmpi-common libopenmpi3
    dpkg -L libpmix2 2>/dev/null || true; } | grep -E "$wanted|^/etc/openmpi/" |
    while read -r path; do
      if [ -f "$path" ] && ! [[ $path =~ $fabrics ]]; then
        install -D -m "$(stat -c %a "$path")" "$path" "$pack/mpi$path"
      fi
    done
  ln -sf orterun "$pack/mpi/usr/bin/mpirun"
}

# What the programs and Open MPI's plug-ins load. The C++ runtime lies apart: the GPU machine's own
# is taken where it is as new (env.sh).
copy_libraries() {
  local path name
  local skipped='^(ld-linux-x86-64|lib(c|m|dl|rt|pthread|resolv|util|cuda|cudart|cublas|cublasLt'
  skipped+='|nccl|cudnn[a-z_]*|nvrtc|nvJitLink))\.so'
  mkdir -p "$pack/lib" "$pack/cxx"
  find "$pack/bin" "$pack/mpi" -type f \( -perm -u+x -o -name '*.so' \) 2>/dev/null |
    while read -r path; do
      { ldd "$path" 2>/dev/null || true; } | awk '$3 ~ /^\// { print $3 }'
    done | sort -u |
    while read -r path; do
      name=$(basename "$path")
      if [[ $name =~ ^lib(stdc\+\+|gcc_s)\.so ]]; then cp -L "$path" "$pack/cxx/$name"
      elif ! [[ $name =~ $skipped ]]; then cp -L "$path" "$pack/lib/$name"; fi
    done
  find "$pack/lib" "$pack/cxx" "$pack/mpi" -name '*.so*' -type f -exec strip --strip-unneeded {} +
}

describe() {
  local changes=no
  if [ -n "$(git status --porcelain --untracked-files=no 2>/dev/null)" ]; then changes=yes; fi
  python3 - "$pack/pack.json" "commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
    "uncommitted_changes=$changes" "packed_at=$(date -u +%FT%TZ)" \
    "glibc=$(ldd --version | sed -n '1s/.* //p')" "nvcc=$(setting CMAKE_CUDA_COMPILER)" \
    "cuda_architectures=$(setting CMAKE_CUDA_ARCHITECTURES)" \
    "compiler=$("$(setting CMAKE_CXX_COMPILER)" --version | head -1)" <<'PYTHON'
import json, sys
facts = dict(word.split("=", 1) for word in sys.argv[2:])
facts["uncommitted_changes"] = facts["uncommitted_changes"] == "yes"
json.dump(facts, open(sys.argv[1], "w"), indent=1)
PYTHON
}

# missing_libraries: what the packed programs would not find here, but for NVIDIA's.
missing_libraries() {
  bash -c 'source scripts/gpu/env.sh; ldd "$ADAGATE_GPU_PACK"/bin/* 2>/dev/null' |
    grep 'not found' | grep -vE 'lib(cuda|cublas|cublasLt|nccl|cudnn)[a-z_]*\.so' | sort -u || true
}

if [ -z "$build" ]; then
  say "build"
  build=$REPO_ROOT/build/gpu-pack
  make_build
fi
check_build
say "pack $build into $pack"
# Of an earlier pack, and nothing else.
if [ -e "$pack" ]; then
  [ -f "$pack/pack.json" ] || [ -z "$(ls -A "$pack")" ] || die "$pack is no pack: move it away"
  rm -rf "$pack"
fi
mkdir -p "$pack"
describe
copy_programs
copy_mpi
copy_libraries
export ADAGATE_GPU_PACK=$pack
missing=$(missing_libraries)
[ -z "$missing" ] || die "the pack lacks libraries: $missing"
if [ $reference = yes ]; then
  say "figures of the CPU"
  bash -c 'source scripts/gpu/env.sh; exec python3 -B scripts/gpu/reference.py'
fi
megabytes=$(du -sm --apparent-size "$pack" | cut -f1)
say "$pack: $megabytes MB"
[ "$megabytes" -lt $most_megabytes ] ||
  die "the pack has $megabytes MB, not below $most_megabytes: $(du -sm "$pack"/* | xargs)"
