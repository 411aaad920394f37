#!/bin/sh
# The paper's comparison on simulated cells, from nothing to the page. `make demo` calls it.
# More seeds and numbers of annotated images, on top of a finished demo:
#   N=1,4,10 SEEDS=0,1,2 make demo
# Other simulated cells, in a folder of their own:
#   CELLS=1 launch/demo.sh runs/study
set -eu
out="${1:-runs/demo}"
numbers="${N:-1}"
seeds="${SEEDS:-0}"
cells="${CELLS:-0}"
cd "$(dirname "$0")/.."
for study in nucleus cell; do
  case "$study" in nucleus) layout=dataset1 ;; cell) layout=dataset2 ;; esac
  isl-simulate --out="$out/raw/$study" --study="$study" --fields=18 --size=256 --seed="$cells"
  # Ten fields to train on, eight to test on; which stays the same when the demo runs again.
  [ -e "$out/data/$study" ] || isl-prepare --source="$out/raw/$study" --layout="$layout" \
    --test=0.45 --val=0 --out="$out/data/$study"
  isl-sweep --config="configs/demo.py:study=$study" --config.data.root="$out/data/$study" \
    --n="$numbers" --inits=imagenet,isl --imagenet_stand_in=random --seeds="$seeds" --workdir="$out/$study"
done
isl-report --workdir="$out"
