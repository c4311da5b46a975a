#!/usr/bin/env bash
# bash launch/study.sh lcsc [SEARCH_SEEDS]
# What a search over 41 snapshots of a training run brings (LCSC), on the digits: five methods at equal
# cost in network evaluations beside the averages that need no search, for a consistency model (ECT) at
# 1 and at 2 evaluations and for a diffusion model (EDM) with DPM-Solver++ at 9, with EMA* at 15 beside
# it; with less training than a longer run has (use a); after a finished run, trained on for a little
# (use b). It writes tables and a plot into runs/study/lcsc; docs/results.md says what they mean. Run
# again, it continues where it was.
#
# There are three search seeds (or SEARCH_SEEDS), and at most two for the diffusion model and the uses
# (a) and (b). The random, CMA-ES, evolution and gradient searches of a use cost as much within 2 %,
# which a test holds them to. A candidate costs n samples times the sampler's evaluations, 1, 2 or 9; a
# step down the derivative 3, 7 or 35 times n in one batch (cm_jax/lcsc/derivative.py). With the 10
# profiles that all begin with (20 for relative units), for each of the n samples:
#
#   use                             n     population methods  gradient            gradient (two spaces)
#   consistency_1, cut, more (1)    1000  10 + 160     = 170  10 + 53 * 3  = 169  20 + 50 * 3  = 170
#   consistency_2            (2)     500  20 + 128 * 2 = 276  20 + 37 * 7  = 279  40 + 34 * 7  = 278
#   diffusion_9              (9)     300  90 + 96 * 9  = 954  90 + 25 * 35 = 965  180 + 22 * 35 = 950
#
# The baselines and the averages are scored by the first evolution search of a use alone; every other
# report is of its result alone. Estimated, not measured, on two quiet cores, with 12 to 15 s for a
# search to start: training 8 minutes, consistency_1 19, consistency_2 18, diffusion_9 19, diffusion_15
# and long 2, cut and more 10: 76 in all. For that, less is searched than once was: 170 candidates for
# the consistency model, where 202 were, and samples of 500 at 2 evaluations; for the diffusion model
# 106 candidates of 300 samples, where 138 of 500 were, two search seeds and two noise sets in the report,
# and no other numbers of evaluations; two search seeds for the uses (a) and (b).
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-3} runs=runs/study/lcsc
fewer=$((seeds < 2 ? seeds : 2))
source launch/environment.sh
environment .venv "" ""

train() { # NAME CONFIG ARGUMENTS: trains NAME/seed0 and keeps what post-hoc averages are made of
  local name=$1 config=$2
  shift 2
  printf '\n== training: %s\n' "$name"
  python -m cm_jax.train --config=configs/$config.py --workdir="$runs/$name/seed0" \
    --config.ema_sigma_rels='(0.05,0.1)' --config.trajectory.emas=True "$@"
}

search() { # USE METHOD SEED CONFIG RUN ARGUMENTS: searches RUN/seed0 with noise and choices of its own
  local use=$1 method=$2 seed=$3 config=$4 run=$5
  shift 5
  printf '\n== search: %s, %s, seed %s\n' "$use" "$method" "$seed"
  python -m cm_jax.search --config=configs/$config.py:$method \
    --workdir="$runs/search/$use/$method/seed$seed" --config.basis.workdir="$runs/$run/seed0" \
    --config.seed="$seed" --config.budget.seed=$((100 + seed)) --config.controls.random=False \
    --config.controls.landscape=0 "$@"
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

unscanned=(--config.controls.windows=0 --config.controls.bema='()' --config.controls.posthoc='()')
alone=("${unscanned[@]}" --config.controls.reported="('lcsc',)")
average=("${unscanned[@]}" --config.controls.reported="('ema*',)")
two_steps=(--config.budget.sampler=multistep@80,0.8 --config.budget.samples=500
  --config.evaluation.samplers="('multistep@80,0.8',)")

search long evolution 0 digits_ect_lcsc ect_long --config.basis.start=600 \
  --config.budget.generations=0 "${average[@]}"
search diffusion_15 evolution 0 digits_edm_lcsc edm --config.budget.sampler=dpm3@15 \
  --config.evaluation.samplers="('dpm3@15',)" --config.budget.generations=0 "${average[@]}"
for ((seed = 0; seed < seeds; seed++)); do
  for method in evolution cma_es random gradient gradient_two; do
    own=("${alone[@]}") at_two=(--config.budget.generations=8)
    if [ $method$seed = evolution0 ]; then own=(); fi
    case $method in
      gradient) at_two=(--config.budget.generations=37 --config.gradient.batch_size=500) ;;
      gradient_two) at_two=(--config.budget.generations=34 --config.gradient.batch_size=500) ;;
    esac
    search consistency_1 $method $seed digits_ect_lcsc ect "${own[@]}"
    search consistency_2 $method $seed digits_ect_lcsc ect "${two_steps[@]}" "${at_two[@]}" "${own[@]}"
    if ((seed < fewer)); then search diffusion_9 $method $seed digits_edm_lcsc edm "${own[@]}"; fi
  done
done
for ((seed = 0; seed < fewer; seed++)); do
  for method in evolution gradient_two; do
    own=("${alone[@]}")
    if [ $method$seed = evolution0 ]; then own=("${average[@]}"); fi
    search cut $method $seed digits_ect_lcsc ect_short --config.basis.start=100 "${own[@]}"
    search more $method $seed digits_ect_lcsc ect_more --config.basis.start=0 "${own[@]}"
  done
done
printf '\n== the tables\n'
python -m cm_jax.study --lcsc --workdir="$runs"
