#!/usr/bin/env bash
# Trains to the end on machines that may be taken away: checks all that it needs, gets a TPU, runs the command, and begins
# again where the run stopped. What fails while the machines stay is started again on them by `bert-jax supervise`, which
# ends it all with 9 where three starts bring no new checkpoint. However this ends, by Ctrl-C or SIGTERM too, the TPU that
# it asked for is given back.
# PROJECT=p ZONE=z IMAGE=… [DRY_RUN=1] launch/cloud_tpu/train.sh pretrain base --data gs://… --run-dir gs://…; common.sh has
# every setting.
set -euo pipefail
here=$(dirname "$0")
# shellcheck source=launch/shared.sh
source "$here/../shared.sh"

if [[ "${1:-}" != pretrain && "${1:-}" != finetune ]]; then refuse "found '${1:-}', wanted a command: pretrain … or finetune …"; fi
run_dir=$(value_of --run-dir "$@") || refuse 'there is no --run-dir: it is where a restart goes on'
if [[ "$run_dir" != gs://?*/?* ]]; then refuse "--run-dir is '$run_dir', wanted gs://BUCKET/…: the machines' own disks go with them"; fi
named=${NAME:+1}  # by a person: what is there by that name may be somebody's
: "${NAME:=$(name_of "$run_dir")}"
export NAME
# shellcheck source=launch/cloud_tpu/common.sh
source "$here/common.sh"
: "${IMAGE:?set IMAGE to what the Dockerfile made, as in us-docker.pkg.dev/project/repository/bert-jax:tpu}"
data=$(value_of --data "$@") || refuse 'there is no --data'
if [[ "$data" != *://* && "$data" != tfds:* ]]; then refuse "--data is '$data', wanted gs://…, which all machines reach"; fi

check_command "$@"

# Whether a folder of a bucket, or the bucket, can be listed.
reaches() { gcloud storage ls "$1" >/dev/null || refuse "$2 $1 cannot be listed; gcloud says why above; nothing was created"; }

if [[ "${DRY_RUN:-0}" != 1 ]]; then
  command -v gcloud >/dev/null || refuse 'gcloud is not here: cloud.google.com/sdk/docs/install'
  gcloud auth print-access-token >/dev/null || refuse 'gcloud is not logged in: gcloud auth login'
  bucket=${run_dir#gs://}
  reaches "gs://${bucket%%/*}" 'the bucket of --run-dir,'
  if [[ "$data" == gs://* ]]; then reaches "$data" --data; fi
  if [[ "$IMAGE" == *-docker.pkg.dev/* ]] && ! found=$(gcloud artifacts docker images describe "$IMAGE" 2>&1); then
    if [[ "$found" == *NOT_FOUND* ]]; then refuse "there is no IMAGE $IMAGE; nothing was created"; fi
    say "whether IMAGE $IMAGE is there could not be found out: $found"
  fi
  look || refuse "whether $NAME is there could not be found out; gcloud says why above; nothing was created"
  ours=1  # by its name it is this run's
  if [[ -n "$named" && "$now" != NONE ]]; then ours=; fi
fi

child='' running=''
# At every end: what was asked for is given back. A second Ctrl-C changes nothing.
finish() {
  local code=$?
  trap '' INT TERM HUP
  trap - EXIT
  if [[ -n "$child" ]]; then
    kill -TERM -- "-$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
    if [[ -n "$running" ]]; then run timeout 90 "${on_workers[@]}" "$STOP" </dev/null || true; fi
  fi
  if [[ -n "${ours:-}" ]]; then
    "$here/delete.sh" || code=$((code ? code : 1))
  elif [[ "${DRY_RUN:-0}" == 1 ]]; then
    "$here/delete.sh"
  else
    say "$NAME was there before, and stays, at a price: NAME=$NAME launch/cloud_tpu/delete.sh"
  fi
  exit "$code"
}

# A command as a child in a group of its own, so that a signal is answered at once, and ends all of it.
step() {
  set -m
  "$@" </dev/null &
  child=$!
  set +m
  local code=0
  wait "$child" || code=$?
  child=''
  return "$code"
}

trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
unheard=0  # starts in a row that ended soon, without a word of supervise: it may never have begun
for ((attempt = 0; ; attempt++)); do
  step "$here/create.sh"
  code=0
  began=$SECONDS
  running=1
  step "$here/run.sh" supervise --attempt "$attempt" -- "$@" || code=$?
  running=''
  case "$code" in
    0 | 3 | 4) unheard=0 ;;  # done; asked to stop
    *) if ((SECONDS - began < SOON)); then unheard=$((unheard + 1)); else unheard=0; fi ;;
  esac
  if ((code == 0)); then exit 0; fi
  # 125: Docker could not start it, as where the registry does not answer; 255: nothing was heard.
  if ! may_pass "$code" && ((code != 125 && code != 255)); then
    say "ended with $code, which no restart mends"
    exit "$code"
  fi
  if ((unheard > MOST_UNHEARD)); then
    say "gave up after $unheard starts that ended with $code in less than $SOON s"
    exit "$code"
  fi
  say "ended with $code; start $((attempt + 2))"
  step sleep "$POLL_SECONDS"  # a TPU that was just taken away is still called ACTIVE for some seconds
done
