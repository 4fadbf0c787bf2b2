#!/usr/bin/env bash
# Asks for a TPU through a queued resource and waits until it is there; one that was taken away is asked for anew.
# PROJECT=p ZONE=z [ACCELERATOR=v5litepod-16] [SPOT=1] [DRY_RUN=1] launch/cloud_tpu/create.sh; common.sh has every setting.
set -euo pipefail
# shellcheck source=launch/cloud_tpu/common.sh
source "$(dirname "$0")/common.sh"

create() {
  local kind=()
  if [[ "$SPOT" == 1 ]]; then kind=(--spot); fi
  resources create "$NAME" --node-id "$NAME" --accelerator-type "$ACCELERATOR" --runtime-version "$RUNTIME" "${kind[@]}" \
    "${create_options[@]}"
}

if [[ "${DRY_RUN:-0}" == 1 ]]; then
  create
  exit
fi
failures=0 failed_requests=0
while true; do
  done=1
  look || done=
  case "$now" in
    ACTIVE) exit 0 ;;
    NONE) create || done= ;;
    FAILED)
      failed_requests=$((failed_requests + 1))
      resources describe "$NAME" --format 'value(state.failedData.error.message)' >&2 || true
      if ((failed_requests >= MOST_FAILED_REQUESTS)); then
        say "$NAME became FAILED $failed_requests times; Google says why above"
        exit 1
      fi
      "$(dirname "$0")/delete.sh" ;;
    SUSPENDING | SUSPENDED) "$(dirname "$0")/delete.sh" ;;
    ?*) say "$NAME is $now" ;;
  esac
  if [[ -n "$done" ]]; then failures=0; else failures=$((failures + 1)); fi
  if ((failures >= MOST_FAILURES)); then
    say "gcloud failed $failures times in a row; it says why above"
    exit 1
  fi
  sleep "$POLL_SECONDS"
done
