#!/usr/bin/env bash
# Installs the packages that building, running and testing adagate need, on Debian 12 or newer and
# Ubuntu 22.04 or newer. Does nothing, and needs no root rights, when everything is there.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
  cat <<'USAGE'
usage: scripts/install_deps.sh [--tests] [--full] [--list] [--check]
  (no option)  what building and running needs
  --tests      also what the tests need (Python, Catch2, valgrind; clang for fuzzing; clang-format)
  --full       the same: what `scripts/test.sh --full` needs
  --list       print the package names and stop
  --check      install nothing; exit 1 and name the packages when some are missing
USAGE
}

# One package per word; a|b: the first that the distribution has. A trailing ? marks packages
# that the project can do without.
build_packages=(g++ cmake ninja-build "pkg-config|pkgconf" git "ccache?"
  libopenmpi-dev openmpi-bin libeigen3-dev libyaml-cpp-dev libcli11-dev libfmt-dev libspdlog-dev
  "nlohmann-json3-dev|nlohmann-json-dev" libxxhash-dev zlib1g-dev libzstd-dev
  "libdnnl-dev|libonednn-dev|libmkldnn-dev?")
test_packages=(python3 catch2 "clang-format-14?" "valgrind?" "clang-14|clang?"
  "libclang-rt-14-dev|libclang-rt-dev|libclang-common-14-dev?")

wanted=("${build_packages[@]}")
mode=install
for option in "$@"; do
  case $option in
    --tests | --full) wanted+=("${test_packages[@]}") ;;
    --list | --check) mode=${option#--} ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "unknown option $option" ;;
  esac
done

if [ $mode = list ]; then
  printf '%s\n' "${wanted[@]}"
  exit 0
fi
command -v apt-get >/dev/null && command -v dpkg-query >/dev/null || die \
  "this machine has no apt; install the equivalents of these packages with its package manager,
  then run the other scripts with --no-install: ${wanted[*]}"

is_installed() {
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}
has_candidate() {
  local policy
  policy=$(apt-cache policy "$1" 2>/dev/null)  # whole: grep -q would end the pipe early
  grep -q 'Candidate: [^(]' <<<"$policy"
}

# missing_entries: the entries of `wanted` of which no alternative is installed.
missing_entries() {
  local entry name found
  for entry in "${wanted[@]}"; do
    found=no
    IFS='|' read -ra names <<<"${entry%\?}"
    for name in "${names[@]}"; do
      if is_installed "$name"; then found=yes; fi
    done
    if [ $found = no ]; then echo "$entry"; fi
  done
}

apt() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o Dpkg::Use-Pty=0 \
    -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" </dev/null
}

# choose_packages ENTRY...: sets `chosen` to the name of each entry in this distribution.
choose_packages() {
  local entry name
  chosen=()
  for entry in "$@"; do
    IFS='|' read -ra names <<<"${entry%\?}"
    for name in "${names[@]}"; do
      if has_candidate "$name"; then
        chosen+=("$name")
        continue 2
      fi
    done
    case $entry in
      *\?) warn "no package ${entry%\?} here; going on without it" ;;
      *) die "apt knows no package ${entry}; supported are Debian 12+ and Ubuntu 22.04+
  (on Ubuntu the 'universe' component must be enabled)" ;;
    esac
  done
}

version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -1)" = "$2" ]; }

# Ubuntu 22.04 ships CMake 3.22; the presets need 3.25.
ensure_cmake() {
  local version
  version=$(cmake --version | sed -n '1s/.* //p')
  if version_at_least "$version" 3.25; then return 0; fi
  say "CMake $version is older than 3.25: installing a newer one under $CACHE_DIR/tools"
  is_installed python3-venv || apt install --no-install-recommends python3-venv
  python3 -m venv "$CACHE_DIR/tools"
  "$CACHE_DIR/tools/bin/pip" install --quiet 'cmake>=3.25,<4' ||
    die "could not install CMake 3.25 or newer with pip; install it by hand and put it into PATH"
}

mapfile -t missing < <(missing_entries)
required=()
for entry in "${missing[@]}"; do
  case $entry in *\?) ;; *) required+=("$entry") ;; esac
done

if [ $mode = check ]; then
  [ ${#required[@]} = 0 ] || die "missing packages: ${required[*]}; run scripts/install_deps.sh"
  echo "all required packages are installed"
  exit 0
fi
if [ ${#missing[@]} = 0 ]; then
  echo "all ${#wanted[@]} packages are installed already"
else
  echo "missing packages: ${missing[*]}"
  if [ ${#required[@]} = 0 ] && [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
    warn "they are optional and need root rights; going on without them"
  else
    apt update || die "apt-get update failed: is the network up, is /etc/apt right?"
    choose_packages "${missing[@]}"
    if [ ${#chosen[@]} != 0 ]; then
      apt install --no-install-recommends "${chosen[@]}" ||
        die "apt-get could not install: ${chosen[*]}"
    fi
  fi
fi
ensure_cmake
echo "dependencies are in place"
