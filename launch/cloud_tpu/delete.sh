#!/usr/bin/env bash
# Gives the TPU and its queued resource back; nothing costs money after that. Fails where it cannot, and says so.
# PROJECT=p ZONE=z [NAME=bert-jax] [DRY_RUN=1] launch/cloud_tpu/delete.sh; common.sh has every setting.
set -euo pipefail
# shellcheck source=launch/cloud_tpu/common.sh
source "$(dirname "$0")/common.sh"

TRIES=5
for ((try = 1; try <= TRIES; try++)); do
  # --force: the TPU that belongs to it too.
  if resources delete "$NAME" --force --quiet || not_found; then exit 0; fi
  if ((try < TRIES)); then sleep "$POLL_SECONDS"; fi
done
say "$NAME COULD NOT BE DELETED, AND MAY GO ON COSTING MONEY: see the console of project $PROJECT, zone $ZONE"
exit 1
