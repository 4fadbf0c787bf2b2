# Settings and helpers of the Cloud TPU scripts; sourced, not run.
# shellcheck shell=bash disable=SC2034  # what is set here is for who sources it

# shellcheck source=launch/shared.sh
source "$(dirname "${BASH_SOURCE[0]}")/../shared.sh"

# Every setting, a variable of the environment each.
: "${PROJECT:?set PROJECT to the Google Cloud project}"
: "${ZONE:?set ZONE, as in us-west4-a}"
: "${NAME:=bert-jax}"                        # of the queued resource and of its TPU; train.sh: by the run's folder
: "${ACCELERATOR:=v5litepod-16}"             # --accelerator-type: the chip and how many (of v2 to v4, v5p, tpu7x: cores)
: "${RUNTIME:=}"                             # --runtime-version: the image of the machines; by the chip where it is empty
: "${SPOT:=1}"                               # 1: cheap, and may be taken away at any time; 0: on demand
: "${BERT_JAX:=bert-jax}"                    # of train.sh: the command that checks recipe and flags, where it is here
: "${CREATE_OPTIONS:=}"                      # further words for `gcloud … queued-resources create`, as in --network=N
: "${SSH_OPTIONS:=}"                         # further words for `gcloud … tpu-vm ssh`, as in --internal-ip
: "${DOCKER_OPTIONS:=}"                      # further words for `docker run`, as in --env=A=B
: "${CACHE_DIR:=}"                           # gs://…, where compiled programs are kept for the next start; not inside the run directory
: "${POLL_SECONDS:=30}"                      # between looks at a resource that is on its way
: "${MOST_FAILURES:=10}"                     # of gcloud or Google in a row, while a TPU is on its way, after which it gives up
: "${MOST_FAILED_REQUESTS:=3}"               # requests in a row that become FAILED, after which it gives up
: "${MOST_UNHEARD:=3}"                       # of train.sh: restarts in a row after starts of which nothing was heard
: "${SOON:=600}"                             # seconds in which such a start ends
: "${GRACE_SECONDS:=30}"                     # of run.sh: from one worker's end for good to the end of the others

# The image that goes with a chip: cloud.google.com/tpu/docs/runtimes, "TPU software versions", for JAX; tpu7x: Google's
# github.com/AI-Hypercomputer/accelerator-microbenchmarks, Ironwood.
runtime_of() {
  case "$1" in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    tpu7x-*) echo v2-alpha-tpu7-ubuntu2404 ;;
    *) return 1 ;;
  esac
}

ACCELERATOR=${ACCELERATOR/#v5e-/v5litepod-}  # as gcloud calls it
if [[ ! "$ACCELERATOR" =~ ^[a-z0-9]+-[1-9][0-9]*$ ]]; then
  refuse "ACCELERATOR is '$ACCELERATOR', wanted a chip and how many, as in v5litepod-16, v6e-8 or v5p-32"
fi
if [[ -z "$RUNTIME" ]] && ! RUNTIME=$(runtime_of "$ACCELERATOR"); then
  refuse "there is no image known for the machines of ACCELERATOR $ACCELERATOR (known: v2 to v4, v5litepod, v5p, v6e, tpu7x): set RUNTIME"
fi
if [[ "$SPOT" != [01] ]]; then refuse "SPOT is '$SPOT', wanted 1 or 0"; fi
for number in POLL_SECONDS MOST_FAILURES MOST_FAILED_REQUESTS MOST_UNHEARD SOON GRACE_SECONDS; do
  if [[ ! "${!number}" =~ ^[0-9]+$ ]]; then refuse "$number is '${!number}', wanted a whole number"; fi
done
if [[ -n "$CACHE_DIR" && "$CACHE_DIR" != gs://?* ]]; then refuse "CACHE_DIR is '$CACHE_DIR', wanted gs://…, which all machines reach"; fi
if [[ ! "$NAME" =~ ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$ ]]; then
  refuse "NAME is '$NAME', wanted at most 63 of a-z, 0-9 and -, a letter first"
fi

WHERE=(--project "$PROJECT" --zone "$ZONE")
read -ra create_options <<<"$CREATE_OPTIONS"
read -ra ssh_options <<<"$SSH_OPTIONS"
read -ra docker_options <<<"$DOCKER_OPTIONS"

# gcloud with a subcommand of queued resources; in `said` what it says on standard error, which goes there too unless it is
# that there is none.
resources() {
  local words=(gcloud compute tpus queued-resources "$@" "${WHERE[@]}") errors code=0
  said=
  if [[ "$1" != describe ]]; then show "${words[@]}"; fi
  if [[ "${DRY_RUN:-0}" == 1 ]]; then return; fi
  errors=$(mktemp)
  "${words[@]}" 2>"$errors" || code=$?
  said=$(<"$errors")
  rm -f "$errors"
  if ((code)) && ! not_found; then echo "$said" >&2; fi
  return "$code"
}

# Whether the last failure was that there is none; any other (a right, a quota, the network) says nothing of that.
not_found() { [[ "$said" == *' NOT_FOUND: '* ]]; }

# Sets `now` to the state of the queued resource: WAITING_FOR_RESOURCES, PROVISIONING, ACTIVE, SUSPENDED, FAILED …; NONE
# where there is none. Fails where that cannot be found out.
look() {
  local answer
  answer=$(mktemp)
  if resources describe "$NAME" --format 'value(state.state)' >"$answer"; then
    now=$(<"$answer")
  elif not_found; then
    now=NONE
  else
    now=
  fi
  rm -f "$answer"
  [[ -n "$now" ]]
}

# What runs the command after it on all workers; --quiet: without a question, which nobody would answer.
on_workers=(gcloud compute tpus tpu-vm ssh "$NAME" --worker all --quiet "${ssh_options[@]}" "${WHERE[@]}" --command)
export STOP='sudo docker stop --time 25 bert-jax'  # such a command: the run saves and ends
