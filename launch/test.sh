#!/usr/bin/env bash
# bash launch/test.sh [--slow] [--python=PYTHON] [pytest arguments]
# Makes the environment, installs what the tests need, and runs ruff, mypy and pytest. With --slow it runs
# the slow tests instead of the others. With --python it tests with that interpreter, in an environment
# of its own. All other arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
folder=.venv python="" marks="not slow"
while [ $# -gt 0 ]; do
  case $1 in
    --slow) marks=slow ;;
    --python=*) python=${1#*=} folder=.venv-$(basename "$python") ;;
    *) break ;;
  esac
  shift
done
environment "$folder" "$python" "[test]"

ruff check .
ruff format --check .
mypy
export NPROC=1 OMP_NUM_THREADS=1 # the threads of XLA and of BLAS: each worker has its core
python -m pytest -m "$marks" -n 2 --dist loadfile --no-loadscope-reorder "$@"
