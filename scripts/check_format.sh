#!/usr/bin/env bash
# Checks the C++ sources against .clang-format with clang-format 14; exit 1 names the lines.
# Skipped with a note where that version is not installed: other versions format differently.
# --fix formats the files in place.
set -euo pipefail
root=${ADAGATE_CHECK_ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
mode=(--dry-run --Werror)
if [ "${1:-}" = --fix ]; then mode=(-i); fi

formatter=$(command -v clang-format-14 || command -v clang-format || true)
if [ -z "$formatter" ] || ! "$formatter" --version | grep -q 'version 14\.'; then
  echo "format: skipped, clang-format 14 is not installed"
  exit 0
fi
cd "$root"
mapfile -d '' files < <(find core parallel data layers moe bench models train apps tests -type f \
  \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -print0 2>/dev/null | sort -z)
printf '%s\0' "${files[@]}" | xargs -0 -n 20 -P "$(nproc)" "$formatter" "${mode[@]}"
echo "format: ${#files[@]} files are formatted"
