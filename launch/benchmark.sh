#!/bin/sh
# Real cells: every field as the one annotated image once, tested on all others. `make benchmark`
# calls it; docs/benchmark.md has the table of sets, splits, seeds and commands.
#   ISL_JAX_DATA=DATA launch/benchmark.sh runs/benchmark
# What is done is skipped, what was cut goes on. Names and lists in the environment:
#   SETS="hela3"     of hela1 hela3 t98g nuclei (hela1: one annotated field, hela3: three)
#   SEEDS=0          first weights and crops; default 0,1
#   PEERS=PYTHON     interpreter with StarDist and Cellpose, which are then trained, too;
#   PEERS_CROPS=N    … for N crops each, default as long as they do by themselves
#   PRETRAIN_STEPS, TRAIN_STEPS; MORE="--config.model.encoder=tiny" further flags of every sweep
set -eu
out="${1:-runs/benchmark}"
data="${ISL_JAX_DATA:?set ISL_JAX_DATA to the folder of the sets, see docs/benchmark.md}"
sets="${SETS:-hela1 hela3 t98g nuclei}"
seeds="${SEEDS:-0,1}"
python="${PYTHON:-python3}"
more="${MORE:-}"
pretrain="--config.pretrain.num_steps=${PRETRAIN_STEPS:-400}"
train="--config.train.num_steps=${TRAIN_STEPS:-200}"
root="$(cd "$(dirname "$0")/.." && pwd)"
labelled="hela1 hela2 hela3 hela4 plating2500k plating10000k"

# take SET FIELD CHANNEL… : copy a field to $raw, `_` in its name as `-`
take() {
  set_name="$1" field="$2"; shift 2
  for channel; do
    to="$raw/$(echo "$field" | tr _ -)_$channel.tif"
    [ -e "$to" ] || cp "$data/$set_name/${field}_$channel.tif" "$to"
  done
}

# prepare DATA FLAGS… : prepare $raw once
prepare() {
  to="$1"; shift
  [ -e "$to/dataset.json" ] || isl-prepare --source="$raw" --layout=folder --bin=2 --out="$to" "$@"
}

# compare CONFIG DATA WORKDIR N FLAGS… : our arms, then the peers
compare() {
  config="$1" of="$2" work="$3" n="$4"; shift 4
  # shellcheck disable=SC2086
  isl-sweep --config="$root/configs/$config.py:init=random" --config.data.root="$of" --n="$n" \
    --inits=random,isl --seeds="$seeds" "$pretrain" "$train" --workdir="$work" $more "$@"
  [ -z "${PEERS:-}" ] || "$python" -m isl_jax.launch.benchmarks.peers --sweep="$work" \
    --python="$PEERS" ${PEERS_CROPS:+--num_crops=$PEERS_CROPS}
}

# stained: the fields with a nuclear stain that nobody is tested on
stained() {
  for field in 3t3_1 3t3_unlabelled bmdm bmdm_unlabelled1 bmdm_unlabelled2 hela_unlabelled mcf10a \
    mcf10a_unlabelled; do take phase_hela_and_others "$field" phase nuclei; done
}

cells="--inputs=phase,phase,phase --labels=cell_masks --study=cell --val=0"
hela_group="hela(?=[24]\$)|.+"

hela() { # NAME, TRAIN fields, TEST groups, fields left out, N
  raw="$out/raw/hela-$1"; mkdir -p "$raw"
  stained
  for field in $labelled; do
    case " $4 " in *" $field "*) continue ;; esac
    take phase_hela_and_others "$field" phase nuclei cell_masks
  done
  # shellcheck disable=SC2086
  prepare "$out/data/hela-$1" $cells --stain=nuclei --group="$hela_group" --test_groups="$3"
  compare hela "$out/data/hela-$1" "$out/cells/hela$5/$1" "$5"
}

hela1() { # hela2 and hela4 show the same cells: where one is annotated, the other is left out
  hela hela1 hela1 hela,hela3,plating2500k,plating10000k "" 1
  hela hela2 hela2 hela1,hela3,plating2500k,plating10000k hela4 1
  hela hela3 hela3 hela1,hela,plating2500k,plating10000k "" 1
  hela hela4 hela4 hela1,hela3,plating2500k,plating10000k hela2 1
  hela plating2500k plating2500k hela1,hela,hela3,plating10000k "" 1
  hela plating10000k plating10000k hela1,hela,hela3,plating2500k "" 1
}

hela3() { # three folds, three of the four other fields annotated, drawn by the seed
  hela a "" hela1,plating2500k "" 3
  hela b "" hela "" 3
  hela c "" hela3,plating10000k "" 3
}

# pretext: a network for sets without a stain, learnt on all of HeLa and others, then exported
pretext() {
  [ ! -e "$out/pretext-exported" ] || return 0
  raw="$out/raw/pretext"; mkdir -p "$raw"
  stained
  for field in $labelled; do take phase_hela_and_others "$field" phase nuclei; done
  prepare "$out/data/pretext" --inputs=phase,phase,phase --stain=nuclei --labels= --study=cell \
    --group="$hela_group" --test=0 --val=0
  # shellcheck disable=SC2086
  isl-train --config="$root/configs/hela.py:pretrain,init=random" --config.data.root="$out/data/pretext" \
    --config.train.num_steps="${PRETRAIN_STEPS:-400}" --workdir="$out/pretext" $more
  isl-export --model="$out/pretext" --format=pretrained --out="$out/pretext-exported" \
    --data_licence="phase contrast and nuclear stains of Van Valen et al. 2016: not stated"
}

t98g() { # no stain of its own: weights travel
  pretext
  raw="$out/raw/t98g"; mkdir -p "$raw"
  for k in 1 2 3 4 5 6; do take phase_t98g "set$k" phase cell_masks; done
  for k in 1 2 3 4 5 6; do
    tested="$(for j in 1 2 3 4 5 6; do [ $j = $k ] || printf 'set%s,' $j; done)"
    # shellcheck disable=SC2086
    prepare "$out/data/t98g-set$k" $cells --test_groups="${tested%,}"
    compare t98g "$out/data/t98g-set$k" "$out/cells/t98g/set$k" 1 \
      --isl_checkpoint="$out/pretext-exported"
  done
}

nuclei() { # one field of the same kind annotated, the two others tested
  for kind in dense adherent; do
    raw="$out/raw/nuclei-$kind"; mkdir -p "$raw"
    for k in 1 2 3; do take brightfield_nuclei "$kind$k" brightfield nuclei nucleus_masks; done
    for k in 1 2 3; do
      tested="$(for j in 1 2 3; do [ $j = $k ] || printf '%s%s,' $kind $j; done)"
      prepare "$out/data/nuclei-$kind$k" --inputs=brightfield,brightfield,brightfield --val=0 \
        --stain=nuclei --labels=nucleus_masks --study=nucleus --test_groups="${tested%,}"
      PEERS='' compare brightfield "$out/data/nuclei-$kind$k" "$out/nuclei/$kind$k" 1
    done
  done
}

mkdir -p "$out"
out="$(cd "$out" && pwd)"
for name in $sets; do "$name"; done
for folder in cells/hela1 cells/hela3 cells/t98g cells nuclei; do
  [ ! -d "$out/$folder" ] || isl-report --workdir="$out/$folder" --pool
done
