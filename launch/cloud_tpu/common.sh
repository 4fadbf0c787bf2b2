# Settings and helpers of the Cloud TPU scripts; sourced, not run.
# shellcheck shell=bash

: "${PROJECT:?set PROJECT to the Google Cloud project}"
: "${ZONE:?set ZONE, as in us-west4-a}"
: "${NAME:=bert-jax}"                        # of the queued resource and of its TPU
: "${ACCELERATOR:=v5litepod-16}"             # --accelerator-type: the chip and how many
: "${RUNTIME:=v2-alpha-tpuv5-lite}"          # --runtime-version: the image that goes with the chip
: "${SPOT:=1}"                               # 1: cheap, and may be taken away at any time; 0: on demand
: "${POLL_SECONDS:=30}"                      # between looks at a resource that is on its way
: "${MOST_UNHEARD:=3}"                       # of train.sh: restarts in a row after starts of which nothing was heard
: "${SOON:=600}"                             # seconds in which such a start ends

WHERE=(--project "$PROJECT" --zone "$ZONE")

# Prints a command, and runs it unless DRY_RUN=1.
run() {
  { printf '+'; printf ' %q' "$@"; echo; } >&2
  if [[ "${DRY_RUN:-0}" != 1 ]]; then "$@"; fi
}

# The state of the queued resource: WAITING_FOR_RESOURCES, PROVISIONING, ACTIVE, SUSPENDED, FAILED …; NONE where there is none.
state() {
  gcloud compute tpus queued-resources describe "$NAME" "${WHERE[@]}" --format 'value(state.state)' 2>/dev/null || echo NONE
}
