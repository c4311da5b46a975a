#!/usr/bin/env bash
# bash launch/test.sh [--slow] [--python=PYTHON] [pytest arguments]
# Creates the environment, installs what the tests need, runs ruff, mypy and pytest. --slow runs the slow
# tests instead of the others; --python tests with another interpreter, in an environment of its own.
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
python -m pytest -m "$marks" -n 2 --dist loadfile --no-loadscope-reorder "$@"
