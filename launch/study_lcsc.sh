#!/usr/bin/env bash
# bash launch/study.sh lcsc [SEARCH_SEEDS]
# What a search over 41 snapshots of a training run brings (LCSC), on the digits: for a consistency
# model (ECT) and for a diffusion model (EDM) with DPM-Solver++ at 5 to 15 evaluations; with less
# training than a longer run has (use a); after a finished run, trained on for a little (use b). There
# are three search seeds (or SEARCH_SEEDS), and one for the diffusion model at other than 9 evaluations.
# It writes tables and a plot into runs/study/lcsc; docs/results.md says what they mean. Run again, it
# continues where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-3} runs=runs/study/lcsc
source launch/environment.sh
environment .venv "" ""

train() { # NAME CONFIG ARGUMENTS: trains NAME/seed0 and keeps what post-hoc averages are made of
  local name=$1 config=$2
  shift 2
  printf '\n== training: %s\n' "$name"
  python -m cm_jax.train --config=configs/$config.py --workdir="$runs/$name/seed0" \
    --config.ema_sigma_rels='(0.05,0.1)' --config.trajectory.emas=True "$@"
}

search() { # USE SEED CONFIG RUN ARGUMENTS: searches over RUN/seed0 with noise and choices of its own
  local use=$1 seed=$2 config=$3 run=$4
  shift 4
  printf '\n== search: %s, seed %s\n' "$use" "$seed"
  python -m cm_jax.search --config=configs/$config.py --workdir="$runs/search/$use/seed$seed" \
    --config.basis.workdir="$runs/$run/seed0" --config.seed="$seed" \
    --config.budget.seed=$((100 + seed)) "$@"
}

train edm digits_edm --config.trajectory.every=20
teacher=(--config.init_from.workdir="$runs/edm/seed0")
train ect digits_ect "${teacher[@]}"
train ect_long digits_ect "${teacher[@]}" --config.steps=3000 --config.trajectory.every=60 \
  --config.objective.double_every=510
train ect_short digits_ect "${teacher[@]}" --config.steps=500 --config.batch_size=32 \
  --config.trajectory.every=10 --config.objective.double_every=85
# On from the last weights, in the last of the six stages: q^-1 is 2^-6.
train ect_more digits_ect --config.init_from.workdir="$runs/ect/seed0" --config.init_from.ema= \
  --config.steps=200 --config.trajectory.every=5 --config.objective.q=64. \
  --config.objective.double_every=1000000

bare=(--config.controls.random=False --config.controls.landscape=0)
search long 0 digits_ect_lcsc ect_long --config.basis.start=600 --config.budget.generations=0 "${bare[@]}"
for ((seed = 0; seed < seeds; seed++)); do
  search consistency $seed digits_ect_lcsc ect --config.controls.landscape=$((seed ? 0 : 9))
  search cut $seed digits_ect_lcsc ect_short --config.basis.start=100 "${bare[@]}"
  search more $seed digits_ect_lcsc ect_more --config.basis.start=0 "${bare[@]}"
  search diffusion_9 $seed digits_edm_lcsc edm
done
for n in 5 7 12 15; do
  search diffusion_$n 0 digits_edm_lcsc edm --config.budget.sampler=dpm3@$n \
    --config.evaluation.samplers="('dpm3@$n',)" "${bare[@]}"
done
printf '\n== the tables\n'
python -m cm_jax.study --lcsc --workdir="$runs"
