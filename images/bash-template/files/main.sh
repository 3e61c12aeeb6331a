#!/usr/bin/env bash
# A template for operators in bash: shows what an operator sees and writes a listing for each series.
set -euo pipefail

workflow_dir="/${WORKFLOW_DIR#/}" # early platforms give it relative to /, today's absolute
batch_dir="$workflow_dir/$BATCH_NAME"

echo "What the platform tells an operator:"
for name in WORKFLOW_DIR BATCH_NAME OPERATOR_IN_DIR OPERATOR_OUT_DIR BATCHES_INPUT_DIR RUN_ID DAG_ID TASK_ID; do
  echo "  $name=${!name-}"
done

shopt -s nullglob
found=0
for series_dir in "$batch_dir"/*/; do
  series_dir="${series_dir%/}"
  series="$(basename "$series_dir")"
  in_dir="$series_dir/$OPERATOR_IN_DIR"
  out_dir="$series_dir/$OPERATOR_OUT_DIR"
  if [[ ! -d "$in_dir" ]]; then
    echo "series $series: has no folder $OPERATOR_IN_DIR, nothing to list" >&2
    continue
  fi
  found=$((found + 1))
  mkdir -p "$out_dir"
  # The processing goes here. This one lists size and name of each file.
  (cd "$in_dir" && find . -type f -printf '%s\t%P\n' | LC_ALL=C sort -t $'\t' -k 2) > "$out_dir/listing.txt"
  echo "series $series: $(wc -l < "$out_dir/listing.txt") files in $OPERATOR_IN_DIR"
done

if [[ $found == 0 ]]; then
  echo "no series to work on in $batch_dir"
  exit 126 # skipped
fi
