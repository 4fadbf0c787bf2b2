#!/usr/bin/env bash
# Gives the TPU and its queued resource back; nothing costs money after that.
# PROJECT=p ZONE=z [DRY_RUN=1] launch/cloud_tpu/delete.sh
set -euo pipefail
# shellcheck source=launch/cloud_tpu/common.sh
source "$(dirname "$0")/common.sh"

# --force: the TPU that belongs to it too.
run gcloud compute tpus queued-resources delete "$NAME" --force --quiet "${WHERE[@]}"
