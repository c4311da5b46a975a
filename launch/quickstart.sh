#!/usr/bin/env bash
# bash launch/quickstart.sh
# Everything once, on the images of scikit-learn's digits, on a CPU, in a few minutes: trains a diffusion
# teacher, tunes it into a consistency model (ECT) and keeps snapshots of its weights on the way,
# searches the best linear combination of the snapshots (LCSC), and compares them all in a report. Run
# again, it continues where it was stopped, or says that it is done.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
environment .venv "" ""

runs=runs/quickstart
mkdir -p "$runs"
step() { printf '\n== %s\n' "$*"; }

step "1/5 a diffusion teacher (EDM)"
python -m cm_jax.train --config=configs/digits_edm.py --workdir=$runs/teacher
step "2/5 easy consistency tuning (ECT) of the teacher"
python -m cm_jax.train --config=configs/digits_ect.py --workdir=$runs/ect --config.init_from.workdir=$runs/teacher
step "3/5 search over the checkpoints of ECT (LCSC)"
python -m cm_jax.search --config=configs/digits_lcsc.py --workdir=$runs/lcsc --config.basis.workdir=$runs/ect
step "4/5 scores of the teacher"
python -m cm_jax.evaluate --workdir=$runs/teacher --ema=0.995
step "5/5 the comparison"
python -m cm_jax.report --workdir=$runs
