#!/bin/sh
# The paper's comparison on simulated cells, from nothing to the page. `make demo` calls it.
set -eu
out="${1:-runs/demo}"
seeds="${SEEDS:-0}"
cd "$(dirname "$0")/.."
mkdir -p "$out"

study() {
  case "$1" in nucleus) layout=dataset1 ;; cell) layout=dataset2 ;; esac
  isl-simulate --out="$out/raw/$1" --study="$1" --fields=18 --size=256 --seed=0
  # Ten fields to train on, eight to test on; which stays the same when the demo runs again.
  [ -e "$out/data/$1" ] || isl-prepare --source="$out/raw/$1" --layout="$layout" \
    --test=0.45 --val=0 --out="$out/data/$1"
  isl-sweep --config="configs/demo.py:study=$1" --config.data.root="$out/data/$1" \
    --n=1 --inits=imagenet,isl --imagenet_stand_in=random --seeds="$seeds" --workdir="$out/$1"
}

# Side by side: one training alone leaves part of a second core idle, and compiling more of it.
echo "cell study: progress in $out/cell.log"
(set -e; study cell) >"$out/cell.log" 2>&1 &
cell=$!
trap 'kill $cell 2>/dev/null || true' EXIT
(set -e; study nucleus)
echo "nucleus study done; waiting for the cell study"
wait $cell || { tail -n 5 "$out/cell.log"; exit 1; }
isl-report --workdir="$out"
