#!/usr/bin/env bash
# Fills in a manifest and hands it to the cluster of the current kubectl context. DRY_RUN=1 prints both and does nothing.
# IMAGE=… DATA=gs://… RUN_DIR=gs://… [RECIPE=base] [DRY_RUN=1] launch/kubernetes/apply.sh tpu|gpu
set -euo pipefail
: "${IMAGE:?set IMAGE to what the Dockerfile made}"
: "${DATA:?set DATA to the shards, on storage that all machines reach}"
: "${RUN_DIR:?set RUN_DIR to where checkpoints go, on storage that all machines reach}"
: "${RECIPE:=base}"
manifest="$(dirname "$0")/${1:-}.yaml"
if [[ ! -f "$manifest" ]]; then
  echo "found no manifest ${1:-}: wanted tpu or gpu" >&2
  exit 2
fi

body=$(<"$manifest")
for name in IMAGE RECIPE DATA RUN_DIR; do
  body=${body//__${name}__/"${!name}"}
done
echo '+ kubectl apply -f -' >&2
if [[ "${DRY_RUN:-0}" == 1 ]]; then
  echo "$body"
else
  kubectl apply -f - <<<"$body"
fi
