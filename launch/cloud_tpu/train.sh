#!/usr/bin/env bash
# Trains to the end on machines that may be taken away: gets a TPU, runs the command, and begins again where the run stopped.
# What fails while the machines stay is started again on them by `bert-jax supervise`, which ends it all with 9 where three
# starts bring no new checkpoint.
# PROJECT=p ZONE=z IMAGE=… [DRY_RUN=1] launch/cloud_tpu/train.sh pretrain base --data gs://… --run-dir gs://…
set -euo pipefail
here=$(dirname "$0")
# shellcheck source=launch/cloud_tpu/common.sh
source "$here/common.sh"

unheard=0  # starts in a row that ended soon, without a word of supervise: it may never have begun
for ((attempt = 0; unheard <= MOST_UNHEARD; attempt++)); do
  "$here/create.sh"
  code=0
  began=$SECONDS
  "$here/run.sh" supervise --attempt "$attempt" -- "$@" || code=$?
  case "$code" in
    0) "$here/delete.sh"; exit 0 ;;
    1 | 2 | 6 | 8 | 9)  # a bug, a wrong argument, loss not finite, another run's directory, nothing new: it would come again
      echo "ended with $code, which no restart mends; $NAME is still there: launch/cloud_tpu/delete.sh" >&2
      exit "$code" ;;
    3 | 4) unheard=0 ;;  # asked to stop
    *) if ((SECONDS - began < SOON)); then unheard=$((unheard + 1)); else unheard=0; fi ;;
  esac
  echo "ended with $code; start $((attempt + 2))" >&2
  sleep "$POLL_SECONDS"  # a TPU that was just taken away is still called ACTIVE for some seconds
done
echo "gave up after $unheard starts that ended with $code in less than $SOON s; $NAME is still there: launch/cloud_tpu/delete.sh" >&2
exit "$code"
