#!/usr/bin/env bash
# bash launch/study.sh NAME [SEEDS]
# Trains methods on one data set at an equal number of images seen, with the same network, over three
# training seeds (or SEEDS), scores them on noise that nothing was chosen by, and writes a table and a
# plot into runs/study/NAME. Run again, it continues where it was.
#   digits: the consistency objectives from and beside their diffusion teacher. A run takes a minute or
#     two on 2 cores; eighteen runs and their scores take 40 minutes on 2 cores of an AMD EPYC that had
#     other work too.
#   digits-cud: catch-up distillation of order 1, 2 and 3 beside rectified flow, each from scratch, and
#     its one-step stage. That stage starts from the 500th step of cud_rk12, and its own 500 steps are
#     counted with those: 1,000 steps and 64,000 images, as many as the others have. Fifteen runs of a
#     minute or two each on those 2 cores, and their scores; the whole was not timed.
#   lcsc: searches over the trajectories of consistency and diffusion models; launch/study_lcsc.sh has it.
#     It takes two hours on those 2 cores.
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:-} seeds=${2:-3}
case $name in
  digits)
    methods="edm ct ict cd ect pd" samplers=() # those of the configs
    time="18 runs and their scores took 40 minutes on 2 cores of an AMD EPYC that had other work too"
    ;;
  digits-cud)
    methods="flow cud_rk12 cud_rk23 cud_rk34 cud_one_step"
    samplers=(--sampler=euler@{1,2,4,8,16})
    time="15 runs of a minute or two each on 2 cores of an AMD EPYC, and their scores"
    ;;
  lcsc) exec bash launch/study_lcsc.sh "$seeds" ;;
  *) echo "error: unknown study '$name'; legal: digits, digits-cud, lcsc" >&2; exit 2 ;;
esac
source launch/environment.sh
environment .venv "" ""

echo "with 3 seeds: $time"
runs=runs/study/$name
for ((seed = 0; seed < seeds; seed++)); do
  teacher=$runs/edm/seed$seed half=$runs/cud_rk12/seed$seed
  for method in $methods; do
    printf '\n== %s, seed %s\n' "$method" "$seed"
    config=digits_$method.py extra=()
    case $method in cud_rk*) config=digits_cud.py:${method#cud_} ;; esac
    case $method in
      cd) extra=(--config.init_from.workdir="$teacher" --config.teacher.workdir="$teacher") ;;
      ect | pd) extra=(--config.init_from.workdir="$teacher") ;;
      cud_rk12) extra=(--config.trajectory.emas=True) ;; # so that its 500th step has its average
      cud_one_step)
        extra=(--config.init_from.workdir="$half" --config.init_from.step=500)
        extra+=(--config.teacher.workdir="$half" --config.teacher.step=500)
        ;;
    esac
    python -m cm_jax.train --config=configs/$config --workdir="$runs/$method/seed$seed" \
      --config.seed=$seed "${extra[@]}"
  done
done
for run in "$runs"/*/seed*; do
  ema=$(python -c 'import sys; from cm_jax.run import open_run; print(open_run(sys.argv[1]).config.sampling.ema)' "$run")
  chosen=("${samplers[@]}")
  case $run in
    */edm/*) chosen=(--sampler=onestep --sampler=ddim@2 --sampler=heun@18) ;;
  esac
  printf '\n== scores of %s\n' "$run"
  python -m cm_jax.evaluate --workdir="$run" --ema="$ema" "${chosen[@]}"
done
printf '\n== the comparison\n'
python -m cm_jax.study --workdir="$runs" --order="${methods// /,}"
