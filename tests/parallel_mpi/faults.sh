#!/usr/bin/env bash
# What the other ranks do when one throws, is killed or hangs: faults.sh MPIRUN PROGRAM
set -u
program=$2
mpirun=("$1" --oversubscribe --allow-run-as-root)
failures=0

# expect NAME CODE TEXT COMMAND...: ends within 30 s, with the code ('*': any but 0), and says TEXT
# once. mpirun of Open MPI 4.1 itself now and then stays when its ranks have ended, or dies by a
# signal in its own last function; then once more.
expect() {
  local name=$1 code=$2 text=$3; shift 3
  local start output status took said
  for attempt in first second; do
    start=$SECONDS
    output=$(timeout -k 5 30 "$@" 2>&1); status=$?
    took=$((SECONDS - start))
    if [[ $took -lt 30 && $output != *PMIx_server_finalize* ]]; then break; fi
    echo "again $name: mpirun ended with $status after $took s at the $attempt attempt"
  done
  said=$(grep -c -F -- "$text" <<< "$output")
  if [[ $took -lt 30 && $said -eq 1 &&
        ( $code == "$status" || ( $code == '*' && $status -ne 0 ) ) ]]; then
    echo "ok    $name: exit code $status after $took s"
  else
    echo "WRONG $name: exit code $status after $took s, '$text' $said times:"; echo "$output"
    failures=$((failures + 1))
  fi
}

# A launcher that leaves the ranks alone when one is killed: all of them end by themselves, with an
# error, and one says whom they miss.
expect_unwatched() {
  local name=$1 n=$2 start=$SECONDS output took told
  output=$(timeout -k 5 30 "${mpirun[@]}" --enable-recovery -n "$n" \
           bash -c '"$0" kill; echo "ended with $?"' "$program" 2>&1)
  took=$((SECONDS - start))
  told=$(grep -c 'rank 1 (last at: step 50, sums) has ended without a word' <<< "$output")
  if [[ $took -lt 30 && $told -eq 1 &&
        $(grep -c 'ended with [1-9]' <<< "$output") -eq $n ]]; then
    echo "ok    $name, $n ranks: after $took s"
  else
    echo "WRONG $name, $n ranks, after $took s:"; echo "$output"
    failures=$((failures + 1))
  fi
}

for n in 2 4; do
  run=("${mpirun[@]}" -n $n "$program")
  expect "a rank throws, $n ranks" 7 'error on rank 1: the disk is full' "${run[@]}" throw
  expect "a rank throws, messages only, $n ranks" 7 'error on rank 1: the disk is full' \
         "${run[@]}" throw_plain
  expect "a rank notes its failure, messages only, $n ranks" 7 'rank 1 failed: the disk is full' \
         "${run[@]}" note_plain
  expect "a rank hangs, $n ranks" '*' 'for rank 1 (last at: step 50, sums)' "${run[@]}" hang
  expect "a rank hangs, messages only, $n ranks" '*' 'for rank 1 (last at: step ' \
         "${run[@]}" hang_plain
  expect "a rank works long, $n ranks" 0 'waited for rank 1' "${run[@]}" work
  expect "a rank works long, messages only, $n ranks" 0 'waited for rank 1' "${run[@]}" work_plain
  expect "a rank leaves, $n ranks" 1 'rank 1 has finished and left' "${run[@]}" leave
  expect "a rank is killed, $n ranks" '*' 'on signal 9' "${run[@]}" kill
  expect_unwatched "a rank is killed unnoticed" $n
done
expect "without mpirun" 1 "unknown mode 'nonsense'" "$program" nonsense
exit $failures
