#!/usr/bin/env bash
# bash launch/tpu_pod.sh NAME ZONE CONFIG gs://BUCKET/RUN [--config.x=y ...]
# CONFIG is a file of configs/, with its variant where it has some: configs/imagenet64_ect.py:xl.
# Trains on all workers of a Cloud TPU VM pod slice (v2 to v6e), which must exist already. It copies the
# last commit to each worker, installs it there with the `tpu` extra, and starts the same command on all
# workers. Run again, it continues the run. It was written after Cloud TPU's documentation, and we have
# not tried it on a pod.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -lt 4 ]; then
  echo "error: usage: bash launch/tpu_pod.sh NAME ZONE CONFIG gs://BUCKET/RUN [--config.x=y ...]" >&2
  exit 2
fi
name=$1 zone=$2 config=$3 workdir=$4
shift 4
archive=$(mktemp --suffix=.tar.gz)
git archive --format=tar.gz --output="$archive" HEAD
on_all=(gcloud compute tpus tpu-vm)
"${on_all[@]}" scp "$archive" "$name:cm_jax.tar.gz" --zone="$zone" --worker=all
"${on_all[@]}" ssh "$name" --zone="$zone" --worker=all --command="
  mkdir -p cm_jax && tar xzf cm_jax.tar.gz -C cm_jax && cd cm_jax &&
  source launch/environment.sh && environment .venv '' '[tpu]' &&
  python -m cm_jax.train --config=$config --workdir=$workdir --distributed=auto ${1:+$(printf '%q ' "$@")}"
