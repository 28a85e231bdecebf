#!/usr/bin/env bash
# Brings real data sets into one folder, in the layout that the configs expect, and tokenises
# WikiText-2 once the binary is built. None ships with the project; each has its own licence.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

target=${ADAGATE_DATA:-$REPO_ROOT/datasets}
source_folder=

usage() {
  cat <<USAGE
usage: scripts/fetch_data.sh [--list] [--from DIR] [--to DIR] [--no-tokenize]
  --list         say where to get each set, its licence, and the files it gives
  --from DIR     copy from a folder in that layout (sets it lacks are skipped)
  --to DIR       where to (default \$ADAGATE_DATA, else datasets/ of the repository; now $target)
  --no-tokenize  copy only
Without --from, the table of --list is printed: download what you need, put it into a folder in the
layout of the column "files", and run again with --from.
USAGE
}

# Four lines a set: name, where to get it, licence, files in the layout.
sets() {
  cat <<'SETS'
wikitext-2
github.com/pytorch/examples, folder word_language_model/data/wikitext-2
CC BY-SA 3.0
text/wikitext-2/{train,valid,test}.txt
tiny-shakespeare
github.com/karpathy/char-rnn, folder data/tinyshakespeare
public domain
text/tinyshakespeare/input.txt
gpt2-tokenizer
huggingface.co/openai-community/gpt2 (OpenAI's encoder.json and vocab.bpe are renamed on the way)
modified MIT
tokenizers/gpt2/{vocab.json,merges.txt}
bert-tokenizer
huggingface.co/google-bert/bert-base-uncased
Apache-2.0
tokenizers/bert-base-uncased/vocab.txt
sst2
gluebenchmark.com/tasks, set SST-2: a header, then label<TAB>sentence
none stated (Socher et al. 2013)
sentiment/sst2_{train,dev,test}.tsv
multi30k
github.com/multi30k/dataset, folder data/task1/raw
MIT
translation/{train,val,test_2016_flickr,test_2017_flickr}.{de,en}
squad
rajpurkar.github.io/SQuAD-explorer
CC BY-SA 4.0
qa/{train-v1.1,dev-v1.1}.json
dialogsum
github.com/cylnlp/dialogsum, folder DialogSum_Data
CC BY-NC-SA 4.0
summarization/dialogsum.{train,dev,test}.jsonl
scitldr
github.com/allenai/scitldr, folder SciTLDR-Data/SciTLDR-A
Apache-2.0
summarization/SciTLDR-A.{train,dev,test}.jsonl
self-dialogue
github.com/jfainberg/self_dialogue_corpus
BSD-3-Clause
dialogue/self_dialogue.jsonl
SETS
}

# for_each_set FUNCTION: calls it with name, source, licence, files.
for_each_set() {
  local name source licence files
  while read -r name && read -r source && read -r licence && read -r files; do
    "$1" "$name" "$source" "$licence" "$files"
  done < <(sets)
}

print_set() { printf '%s\n  from     %s\n  licence  %s\n  files    %s\n' "$@"; }

# other_name RELATIVE: the name that the source folder may have for it instead.
other_name() {
  case $1 in
    tokenizers/gpt2/vocab.json) echo tokenizers/gpt2/encoder.json ;;
    tokenizers/gpt2/merges.txt) echo tokenizers/gpt2/vocab.bpe ;;
    qa/train-v1.1.json) echo qa/train-v1.1.rebuilt.json ;;
    *) echo "$1" ;;
  esac
}

# copy_file RELATIVE: 1 when the source folder has no such file.
copy_file() {
  local found=$1
  [ -s "$source_folder/$found" ] || found=$(other_name "$1")
  [ -s "$source_folder/$found" ] || return 1
  mkdir -p "$(dirname "$target/$1")"
  # Written beside and renamed, so that an interrupted copy is never taken for the file.
  cp "$source_folder/$found" "$target/$1.part"
  mv "$target/$1.part" "$target/$1"
}

copied=0
copy_set() {
  local name=$1 files=$4 relative missing=()
  for relative in $(eval "echo $files"); do  # the braces of the table above
    copy_file "$relative" || missing+=("$relative")
  done
  if [ ${#missing[@]} = 0 ]; then
    printf '%-18s copied\n' "$name"
    copied=$((copied + 1))
  else
    printf '%-18s skipped, the source lacks: %s\n' "$name" "${missing[*]}"
  fi
}

tokenize_wikitext() {
  local adagate=$REPO_ROOT/build/cpu-release/bin/adagate split input output
  if [ ! -x "$adagate" ]; then
    echo "wikitext-2 is not tokenised yet: build the program, then run this again"
    return 0
  fi
  for split in train valid test; do
    input=$target/text/wikitext-2/$split.txt
    output=$target/text/wikitext-2/$split.gpt2.tokens
    if [ -f "$input" ] && { [ ! -f "$output" ] || [ "$input" -nt "$output" ]; }; then
      "$adagate" tokenize "$input" --tokenizer "$target/tokenizers/gpt2" --output "$output"
    fi
  done
}

tokenize=yes
while [ $# -gt 0 ]; do
  case $1 in
    --list) for_each_set print_set; exit 0 ;;
    --from | --to)
      [ $# -ge 2 ] || die "$1 needs a folder"
      if [ "$1" = --from ]; then source_folder=$2; else target=$2; fi
      shift ;;
    --no-tokenize) tokenize=no ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "unknown option $1" ;;
  esac
  shift
done
if [ -z "$source_folder" ]; then
  usage
  echo
  for_each_set print_set
  exit 0
fi
[ -d "$source_folder" ] || die "--from $source_folder: no such folder"
for_each_set copy_set
[ $copied -gt 0 ] || die "no complete set in $source_folder; --list shows the layout"
if [ $tokenize = yes ] && [ -f "$target/text/wikitext-2/train.txt" ]; then tokenize_wikitext; fi
echo "data is in $target"
