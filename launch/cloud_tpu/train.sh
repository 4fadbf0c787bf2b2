#!/usr/bin/env bash
# Trains to the end on machines that may be taken away: gets a TPU, runs the command, and begins again where the run stopped.
# PROJECT=p ZONE=z IMAGE=… [DRY_RUN=1] launch/cloud_tpu/train.sh pretrain base --data gs://… --run-dir gs://…
set -euo pipefail
here=$(dirname "$0")
# shellcheck source=launch/cloud_tpu/common.sh
source "$here/common.sh"

for ((restart = 0; restart <= MOST_RESTARTS; restart++)); do
  "$here/create.sh"
  code=0
  "$here/run.sh" "$@" || code=$?
  case "$code" in
    0) "$here/delete.sh"; exit 0 ;;
    1 | 2 | 6 | 8)  # a bug, a wrong argument, loss not finite, another run's directory: the same would come of it again
      echo "ended with $code, which no restart mends; $NAME is still there: launch/cloud_tpu/delete.sh" >&2
      exit "$code" ;;
  esac
  echo "ended with $code; restart $((restart + 1)) of at most $MOST_RESTARTS" >&2
  sleep "$POLL_SECONDS"  # a TPU that was just taken away is still called ACTIVE for some seconds
done
echo "gave up after $MOST_RESTARTS restarts; $NAME is still there: launch/cloud_tpu/delete.sh" >&2
exit 1
