#!/usr/bin/env bash
# bash launch/quickstart.sh
# Everything once, on the images of scikit-learn's digits, on a CPU, in a few minutes: trains a diffusion
# teacher, tunes it into a consistency model (ECT) and keeps snapshots of its weights on the way,
# searches the best linear combination of the snapshots (LCSC), by evolution and down the derivative of
# the score, and compares them all in a report. Run again, it continues where it was stopped, or says
# that it is done.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
environment .venv "" ""

runs=runs/quickstart
mkdir -p "$runs"
step() { printf '\n== %s\n' "$*"; }

step "1/6 a diffusion teacher (EDM)"
python -m cm_jax.train --config=configs/digits_edm.py --workdir=$runs/teacher
step "2/6 easy consistency tuning (ECT) of the teacher"
python -m cm_jax.train --config=configs/digits_ect.py --workdir=$runs/ect --config.init_from.workdir=$runs/teacher
step "3/6 search over the checkpoints of ECT by evolution (LCSC)"
python -m cm_jax.search --config=configs/digits_lcsc.py --workdir=$runs/lcsc --config.basis.workdir=$runs/ect
step "4/6 search over the same checkpoints down the derivative of the score"
python -m cm_jax.search --config=configs/digits_lcsc.py:gradient --workdir=$runs/lcsc_gradient --config.basis.workdir=$runs/ect
step "5/6 scores of the teacher"
python -m cm_jax.evaluate --workdir=$runs/teacher --ema=0.995
step "6/6 the comparison"
python -m cm_jax.report --workdir=$runs
