#!/usr/bin/env bash
# bash launch/study.sh lcsc [SEARCH_SEEDS]
# What a search over 41 snapshots of a training run brings (LCSC), on the digits: five methods at equal
# cost in network evaluations beside the averages that need no search, for a consistency model (ECT) at
# 1 and at 2 evaluations and for a diffusion model (EDM) with DPM-Solver++ at 9, with EMA* at 15 beside
# it; with less training than a longer run has (use a); after a finished run, trained on for a little
# (use b). It writes tables and a plot into runs/study/lcsc; docs/results.md says what they mean. Run
# again, it continues where it was.
#
# There are three search seeds (or SEARCH_SEEDS). The random, CMA-ES, evolution and gradient searches of
# a use cost as much within 2 %, which a test holds them to. A candidate costs n samples times the
# sampler's evaluations, 1, 2 or 9; a step down the derivative 3, 7 or 35 times n in one batch
# (cm_jax/lcsc/derivative.py). With the 10 profiles that all begin with (20 for relative units), for each
# of the n samples:
#
#   use                             n     population methods  gradient            gradient (two spaces)
#   consistency_1, cut, more (1)    1000  10 + 160     = 170  10 + 53 * 3  = 169  20 + 50 * 3  = 170
#   consistency_2            (2)     500  20 + 128 * 2 = 276  20 + 37 * 7  = 279  40 + 34 * 7  = 278
#   diffusion_9              (9)     300  90 + 96 * 9  = 954  90 + 25 * 35 = 965  180 + 22 * 35 = 950
#
# The baselines and the averages are scored by the first evolution search of a use alone; every other
# report is of its result alone. Without an accelerator as many commands run side by side as there are
# cores, each on one core; with one they run in turn. Their output is in runs/study/lcsc/logs. It took
# two hours on 2 cores that had other work too.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-3} runs=runs/study/lcsc
source launch/environment.sh
environment .venv "" ""
echo "with 3 seeds it took two hours on 2 cores of an AMD EPYC that had other work too"
at_once=$(python -c 'import os, jax; print(os.cpu_count() if jax.default_backend() == "cpu" else 1)')
if [ "$at_once" -gt 1 ]; then export NPROC=1 OMP_NUM_THREADS=1; fi # the threads of XLA and of BLAS

queue=()
add() { # NAME ARGUMENTS: python -m ARGUMENTS waits in the queue; its output goes to logs/NAME
  queue+=("$1 $(printf '%q ' "${@:2}")")
}
run() { # 'NAME ARGUMENTS': one entry of the queue
  local name=${1%% *} log start=$SECONDS
  log=$logs/$name
  if ! eval "python -m ${1#* }" &> "$log"; then
    printf 'error: %s ended with an error; %s ends with\n%s\n' "$name" "$log" "$(tail -n 5 "$log")" >&2
    return 255 # xargs starts no other
  fi
  printf '%s: %d s\n' "$name" $((SECONDS - start))
}
run_queue() {
  printf '\n== %s: %d commands, %d at once\n' "$1" "${#queue[@]}" "$at_once"
  printf '%s\0' "${queue[@]}" | xargs -0 -n 1 -P "$at_once" bash -c 'run "$1"' run
  queue=()
}
export logs=$runs/logs
export -f run
mkdir -p "$logs"

train() { # NAME CONFIG ARGUMENTS: trains NAME/seed0 and keeps what post-hoc averages are made of
  local name=$1 config=$2
  shift 2
  add "train_$name" cm_jax.train --config=configs/$config.py --workdir="$runs/$name/seed0" \
    --config.ema_sigma_rels='(0.05,0.1)' --config.trajectory.emas=True "$@"
}

search() { # USE METHOD SEED CONFIG RUN ARGUMENTS: searches RUN/seed0 with noise and choices of its own
  local use=$1 method=$2 seed=$3 config=$4 run=$5
  shift 5
  add "search_${use}_${method}_$seed" cm_jax.search --config=configs/$config.py:$method \
    --workdir="$runs/search/$use/$method/seed$seed" --config.basis.workdir="$runs/$run/seed0" \
    --config.seed="$seed" --config.budget.seed=$((100 + seed)) --config.controls.random=False \
    --config.controls.landscape=0 "$@"
}

train edm digits_edm --config.trajectory.every=20
run_queue 'the teacher'
teacher=(--config.init_from.workdir="$runs/edm/seed0")
train ect digits_ect "${teacher[@]}"
train ect_long digits_ect "${teacher[@]}" --config.steps=3000 --config.trajectory.every=60 \
  --config.objective.double_every=510
train ect_short digits_ect "${teacher[@]}" --config.steps=500 --config.batch_size=32 \
  --config.trajectory.every=10 --config.objective.double_every=85
run_queue 'consistency models'
# On from the last weights, in the last of the six stages: q^-1 is 2^-6.
train ect_more digits_ect --config.init_from.workdir="$runs/ect/seed0" --config.init_from.ema= \
  --config.steps=200 --config.trajectory.every=5 --config.objective.q=64. \
  --config.objective.double_every=1000000
run_queue 'a finished run, trained on'

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
    search diffusion_9 $method $seed digits_edm_lcsc edm "${own[@]}"
  done
  for method in evolution gradient_two; do
    own=("${alone[@]}")
    if [ $method$seed = evolution0 ]; then own=("${average[@]}"); fi
    search cut $method $seed digits_ect_lcsc ect_short --config.basis.start=100 "${own[@]}"
    search more $method $seed digits_ect_lcsc ect_more --config.basis.start=0 "${own[@]}"
  done
done
run_queue 'searches'
printf '\n== the tables\n'
python -m cm_jax.study --lcsc --workdir="$runs"
