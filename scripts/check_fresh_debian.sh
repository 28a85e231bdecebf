#!/usr/bin/env bash
# The stranger's first hour, for real: makes a bare Debian system in DIR, clones the repository into
# it, and runs scripts/quickstart.sh and scripts/test.sh there. Needs root and debootstrap; the
# mirror is the one that this machine's apt uses. The committed state is what is tried.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
  cat <<'USAGE'
usage: scripts/check_fresh_debian.sh DIR [--suite NAME] [--run COMMAND]... [--reuse]
  DIR            where the system is made: outside the repository, absent or empty
  --suite NAME   Debian release (default bookworm, which is Debian 12)
  --run COMMAND  run this inside instead of the two scripts; may be given several times
  --reuse        DIR holds a system of an earlier run: take it as it is, with a fresh clone
USAGE
}

system='' suite=bookworm reuse=no
commands=()
while [ $# -gt 0 ]; do
  case $1 in
    --suite | --run)
      [ $# -ge 2 ] || die "$1 needs a value"
      if [ "$1" = --suite ]; then suite=$2; else commands+=("$2"); fi
      shift ;;
    --reuse) reuse=yes ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; die "unknown option $1" ;;
    *) [ -z "$system" ] || die "one DIR, please"; system=$(realpath -m "$1") ;;
  esac
  shift
done
[ -n "$system" ] || { usage >&2; exit 1; }
[ ${#commands[@]} -gt 0 ] || commands=("bash scripts/quickstart.sh" "bash scripts/test.sh")
[ "$(id -u)" = 0 ] || die "needs root: it makes a system and changes its root to it"
command -v debootstrap >/dev/null || die "needs debootstrap (apt-get install debootstrap)"
case $system/ in "$REPO_ROOT"/*) die "DIR must lie outside the repository" ;; esac
if [ $reuse = no ] && [ -d "$system" ] && [ -n "$(ls -A "$system")" ]; then
  die "$system is not empty; give another folder, or --reuse"
fi
[ $reuse = no ] || [ -x "$system/bin/bash" ] || die "$system holds no system to reuse"

mirror_of_this_machine() {
  local targets
  targets=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages')
  awk -v suite="$suite" '$1 == suite {print $2; exit}' <<<"$targets"
}

make_system() {
  local mirror
  mirror=$(mirror_of_this_machine)
  [ -n "$mirror" ] || die "this machine's apt has no source for $suite"
  debootstrap --variant=minbase "$suite" "$system" "$mirror" >"$system.debootstrap.log" 2>&1 ||
    { tail -20 "$system.debootstrap.log" >&2; return 1; }
  # How this machine's apt reaches its mirror (a proxy, say) holds inside too.
  apt-config dump | grep -E '^Acquire::(http|https)::Proxy' >"$system/etc/apt/apt.conf.d/90proxy" ||
    true
}

clone() {
  rm -rf "$system/opt/adagate"
  [ -z "$(git -C "$REPO_ROOT" status --porcelain)" ] ||
    warn "uncommitted changes are not part of the clone"
  git clone --quiet --no-hardlinks "$REPO_ROOT" "$system/opt/adagate"
}

# run_inside COMMAND: in a mount namespace of its own, so that no mount outlives it.
run_inside() {
  cp --remove-destination "$(realpath /etc/resolv.conf)" "$system/etc/resolv.conf"
  # As every installed system has it; mpirun would wait for a name server.
  echo "127.0.0.1 localhost $(hostname)" >"$system/etc/hosts"
  unshare --mount bash -c '
    mount -t proc proc "$0/proc" && mount -t sysfs sysfs "$0/sys" && mount --rbind /dev "$0/dev" &&
    exec chroot "$0" /usr/bin/env -i HOME=/root TERM=dumb PATH=/usr/sbin:/usr/bin:/sbin:/bin \
      bash -c "cd /opt/adagate && $1" </dev/null' "$system" "$1"
}

if [ $reuse = no ]; then stage "bare $suite system" make_system; fi
stage "clone" clone
status=0
for command in "${commands[@]}"; do
  stage "$command" run_inside "$command" || status=1
done
print_summary || status=1
exit $status
