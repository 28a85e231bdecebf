#!/usr/bin/env bash
# Compares the loss that a run reached with the unigram entropy of its text. A model that knows only
# how often each byte occurs has a loss of the entropy; exit 1 unless the reached one is clearly
# below (0.5 nats). Usage: quickstart_report.sh METRICS_JSONL TEXT
set -euo pipefail
export LC_ALL=C
metrics=$1 text=$2

entropy=$(od -An -v -tu1 -w1 "$text" | awk '
  { ++count[$1] }
  END { for (byte in count) sum -= count[byte] / NR * log(count[byte] / NR); print sum + 0 }')

# Each line of metrics.jsonl is one object; the keys below stand in no object inside it.
awk -v entropy="$entropy" -v path="$metrics" '
  function value(key,    at, rest) {  # of the line, "" if it has none
    if (match($0, "\"" key "\": *[^,}]*") == 0) return ""
    rest = substr($0, RSTART, RLENGTH)
    sub(/^[^:]*: */, "", rest)
    return rest
  }
  function is_number(text) { return text ~ /^-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?$/ }
  function mean(list, first, last,    i, sum) {
    for (i = first; i <= last; ++i) {
      if (!is_number(list[i])) return "nan"
      sum += list[i]
    }
    return sum / (last - first + 1)
  }
  function fail(message) { print message > "/dev/stderr"; failed = 1; exit 1 }
  value("loss") != "" { loss[++steps] = value("loss"); step = value("step") }
  value("validation_loss") != "" { validation = value("validation_loss") }
  value("loss") != "" && value("single_expert_share") != "" {
    share[++shares] = value("single_expert_share")
  }
  END {
    if (failed) exit 1
    if (!steps) fail(path " has no step")
    recent = 20  # steps averaged where the run had no evaluation
    last = mean(loss, steps > recent ? steps - recent + 1 : 1, steps)
    reached = validation != "" ? validation : last
    if (!is_number(reached)) fail("the loss is " reached)
    printf "steps                         %d\n", step
    printf "unigram entropy of the text   %.3f nats per byte\n", entropy
    printf "loss at the first step        %.3f\n", loss[1]
    printf "loss of the last steps        %.3f\n", last
    if (validation != "") printf "loss on unseen text           %.3f\n", validation
    if (shares)
      printf "tokens with a single expert   %.1f%% at first, %.1f%% at last\n",
        100 * mean(share, 1, shares < recent ? shares : recent),
        100 * mean(share, shares > recent ? shares - recent + 1 : 1, shares)
    if (reached > entropy - 0.5)
      fail(sprintf("the model learned next to nothing: %.3f is not below the entropy %.3f by 0.5",
                   reached, entropy))
  }' "$metrics"
