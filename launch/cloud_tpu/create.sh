#!/usr/bin/env bash
# Asks for a TPU through a queued resource and waits until it is there; one that was taken away is asked for anew.
# PROJECT=p ZONE=z [ACCELERATOR=v5litepod-16] [SPOT=1] [DRY_RUN=1] launch/cloud_tpu/create.sh
set -euo pipefail
# shellcheck source=launch/cloud_tpu/common.sh
source "$(dirname "$0")/common.sh"

create() {
  local kind=()
  if [[ "$SPOT" == 1 ]]; then kind=(--spot); fi
  run gcloud compute tpus queued-resources create "$NAME" --node-id "$NAME" --accelerator-type "$ACCELERATOR" \
    --runtime-version "$RUNTIME" "${kind[@]}" "${WHERE[@]}"
}

if [[ "${DRY_RUN:-0}" == 1 ]]; then
  create
  exit
fi
while true; do
  now=$(state)
  case "$now" in
    ACTIVE) exit 0 ;;
    NONE) create ;;
    SUSPENDING | SUSPENDED | FAILED) "$(dirname "$0")/delete.sh" ;;
    *) echo "$NAME is $now" >&2 ;;
  esac
  sleep "$POLL_SECONDS"
done
