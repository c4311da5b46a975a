#!/usr/bin/env bash
# The whole story on scikit-learn's digits, on a CPU, in a few minutes: train a diffusion teacher, tune
# it into a consistency model (ECT) while its checkpoints are saved, search a better combination of
# them (LCSC), and compare. Run again, it continues where it was, or says that it is done.
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
