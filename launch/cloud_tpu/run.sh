#!/usr/bin/env bash
# Runs one bert-jax command on all workers of the TPU; ends with its exit code, of a worker that failed for good where one did.
# PROJECT=p ZONE=z IMAGE=… [DRY_RUN=1] launch/cloud_tpu/run.sh pretrain base --data gs://… --run-dir gs://…; common.sh has
# every setting.
set -euo pipefail
# shellcheck source=launch/cloud_tpu/common.sh
source "$(dirname "$0")/common.sh"
: "${IMAGE:?set IMAGE to what the Dockerfile made, as in us-docker.pkg.dev/project/repository/bert-jax:tpu}"

MARK=bert-jax-exit-code=
options=(
  --name bert-jax           # to be found and removed by the next try
  --net host                # JAX asks the metadata server who the other workers are, and reaches them on port 8482
  --privileged              # the TPU's device files
  --ulimit memlock=-1       # libtpu pins host memory for transfers
  --shm-size 16g            # libtpu's buffers between its threads; Docker's own 64 MB are too little
  --stop-timeout 25         # seconds from SIGTERM, at which the run saves, to SIGKILL; a spot VM has 30 in all
)
if [[ -n "$CACHE_DIR" ]]; then
  options+=(--env "JAX_COMPILATION_CACHE_DIR=$CACHE_DIR")  # a restart need not compile again
fi

# The host's part of an image's name is the registry to log in to. What an earlier try left running would hold the chips.
remote="sudo gcloud --quiet auth configure-docker $(printf %q "${IMAGE%%/*}") 2>/dev/null"
remote+="; sudo docker rm --force bert-jax >/dev/null 2>&1"
remote+="; sudo docker run $(printf '%q ' "${options[@]}" "${docker_options[@]}" "$IMAGE" "$@")"
remote+="; echo $MARK\$?"  # gcloud does not say which worker ended how

if [[ "${DRY_RUN:-0}" == 1 ]]; then
  run "${on_workers[@]}" "$remote"
  exit
fi
ends=$(mktemp)
trap 'rm -f "$ends"' EXIT

# Prints what the workers say, and keeps how they ended. Where one ended with what comes again, the others would only
# wait for it, at a price.
relay() {
  local line code asked=
  while IFS= read -r line; do
    printf '%s\n' "$line"
    if [[ "$line" == *"$MARK"* ]]; then
      code=${line##*"$MARK"}
      code=${code%%[!0-9]*}
      echo "$code" >>"$ends"
      if [[ -z "$asked" && "$code" != 0 ]] && ! may_pass "$code"; then
        { sleep "$GRACE_SECONDS" 2>/dev/null; run "${on_workers[@]}" "$STOP"; } >/dev/null </dev/null &
        asked=$!
      fi
    fi
  done
  if [[ -n "$asked" ]]; then kill "$asked" 2>/dev/null || true; fi
}

run "${on_workers[@]}" "$remote" </dev/null | relay || true
mapfile -t codes <"$ends"
# 255: none of them said anything: the connection or the machines are gone.
exit "$(code_of "${codes[@]}" || echo 255)"
