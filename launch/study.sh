#!/usr/bin/env bash
# bash launch/study.sh digits [SEEDS]
# Trains methods on one data set at an equal number of images seen, with the same network, over three
# training seeds (or SEEDS), scores them on noise that nothing was chosen by, and writes a table and a
# plot into runs/study/NAME. Run again, it continues where it was.
#   digits: the consistency objectives from and beside their diffusion teacher; half an hour on 2 cores
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:-} seeds=${2:-3}
case $name in
  digits) students="ct ict cd ect pd" ;;
  *) echo "error: unknown study '$name'; legal: digits" >&2; exit 2 ;;
esac
source launch/environment.sh
environment .venv "" ""

runs=runs/study/$name
for ((seed = 0; seed < seeds; seed++)); do
  teacher=$runs/edm/seed$seed
  printf '\n== edm, seed %s\n' "$seed"
  python -m cm_jax.train --config=configs/digits_edm.py --workdir="$teacher" --config.seed=$seed
  for method in $students; do
    printf '\n== %s, seed %s\n' "$method" "$seed"
    from=()
    case $method in
      cd) from=(--config.init_from.workdir="$teacher" --config.teacher.workdir="$teacher") ;;
      ect | pd) from=(--config.init_from.workdir="$teacher") ;;
    esac
    python -m cm_jax.train --config=configs/digits_$method.py --workdir="$runs/$method/seed$seed" \
      --config.seed=$seed "${from[@]}"
  done
done
for run in "$runs"/*/seed*; do
  ema=$(python -c 'import sys; from cm_jax.run import open_run; print(open_run(sys.argv[1]).config.sampling.ema)' "$run")
  samplers=()
  case $run in
    */edm/*) samplers=(--sampler=onestep --sampler=ddim@2 --sampler=heun@18) ;;
  esac
  printf '\n== scores of %s\n' "$run"
  python -m cm_jax.evaluate --workdir="$run" --ema="$ema" "${samplers[@]}"
done
printf '\n== the comparison\n'
python -m cm_jax.study --workdir="$runs" --order="edm,${students// /,}"
