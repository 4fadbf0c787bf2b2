#!/usr/bin/env bash
# Runs one bert-jax command on all workers of the TPU; ends with its exit code.
# PROJECT=p ZONE=z IMAGE=… [DRY_RUN=1] launch/cloud_tpu/run.sh pretrain base --data gs://… --run-dir gs://…
set -euo pipefail
# shellcheck source=launch/cloud_tpu/common.sh
source "$(dirname "$0")/common.sh"
: "${IMAGE:?set IMAGE to what the Dockerfile made, as in us-docker.pkg.dev/project/repository/bert-jax:tpu}"

options=(
  --name bert-jax           # to be found and removed by the next try
  --net host                # JAX asks the metadata server who the other workers are, and reaches them on port 8482
  --privileged              # the TPU's device files
  --ulimit memlock=-1       # libtpu pins host memory for transfers
  --shm-size 16g            # libtpu's buffers between its threads; Docker's own 64 MB are too little
  --init                    # hands signals on: the VM's shutdown becomes a SIGTERM, at which the run saves
  --stop-timeout 25         # seconds from that to SIGKILL; a spot VM has 30 in all
)
if [[ -n "${CACHE_DIR:-}" ]]; then
  options+=(--env "JAX_COMPILATION_CACHE_DIR=$CACHE_DIR")  # gs://…: a restart need not compile again; not inside the run directory
fi

# The host's part of an image's name is the registry to log in to. What an earlier try left running would hold the chips.
remote="sudo gcloud --quiet auth configure-docker $(printf %q "${IMAGE%%/*}") 2>/dev/null"
remote+="; sudo docker rm --force bert-jax >/dev/null 2>&1"
remote+="; sudo docker run $(printf '%q ' "${options[@]}" "$IMAGE" "$@")"
remote+="; echo bert-jax-exit-code=\$?"  # gcloud does not say which worker ended how

log=$(mktemp)
trap 'rm -f "$log"' EXIT
run gcloud compute tpus tpu-vm ssh "$NAME" --worker all --command "$remote" "${WHERE[@]}" | tee "$log" || true
if [[ "${DRY_RUN:-0}" == 1 ]]; then exit 0; fi

# All workers end alike, or one of them tells why: the codes that no restart mends come first, then the highest.
codes=$(grep -o 'bert-jax-exit-code=[0-9]*' "$log" | cut -d= -f2 | sort -urn || true)
for code in 1 2 6 8 9 $codes; do
  if grep -qx "$code" <<<"$codes"; then
    exit "$code"
  fi
done
exit 255  # none of them said anything: the connection or the machines are gone
