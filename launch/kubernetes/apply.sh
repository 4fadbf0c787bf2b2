#!/usr/bin/env bash
# Fills in a manifest and hands it to the cluster of the current kubectl context; what follows tpu or gpu are further
# settings of `bert-jax pretrain`. DRY_RUN=1 prints both and does nothing.
# IMAGE=… DATA=gs://… RUN_DIR=gs://… [RECIPE=base] [DRY_RUN=1] launch/kubernetes/apply.sh tpu|gpu [--run.steps 1000 …]
set -euo pipefail
# shellcheck source=launch/shared.sh
source "$(dirname "$0")/../shared.sh"
# shellcheck source=launch/kubernetes/shared.sh
source "$(dirname "$0")/shared.sh"

# Every setting, a variable of the environment each.
: "${IMAGE:?set IMAGE to what the Dockerfile made}"
: "${DATA:?set DATA to the shards, on storage that all machines reach}"
: "${RUN_DIR:?set RUN_DIR to where checkpoints go, on storage that all machines reach}"
: "${RECIPE:=base}"
: "${NAME:=$(name_of "$RUN_DIR")}"           # of the JobSet
: "${CACHE_DIR:=${RUN_DIR%%/}-compilation-cache}"  # compiled programs, kept for a restart; not inside the run directory
: "${TPU:=tpu-v5-lite-podslice}"             # the node pool's cloud.google.com/gke-tpu-accelerator
: "${TOPOLOGY:=4x4}"                         # and its cloud.google.com/gke-tpu-topology
: "${CHIPS:=4}"                              # TPU chips of a machine, as in ct5lp-hightpu-4t
: "${GPU:=nvidia-h100-80gb}"                 # the node pool's cloud.google.com/gke-accelerator
: "${GPUS:=8}"                               # of a machine
: "${MACHINES:=}"                            # with GPUs: 2 where it is empty; with TPUs those of the topology
: "${RUN_AS:=1000}"                          # the user, as the image has it; 0 where a machine's device files are root's alone
: "${GRACE_SECONDS:=60}"                     # from SIGTERM, at which the run saves, to SIGKILL; a spot machine has 25 in all
: "${MOST_RESTARTS:=1000}"                   # of all pods; what ends a run is `supervise`, where three bring nothing new
: "${KUBECTL:=kubectl}"                      # with further words, as in kubectl --context C --namespace N
: "${BERT_JAX:=bert-jax}"                    # the command that checks recipe and flags, where it is here

kind=${1:-}
if [[ "$kind" != tpu && "$kind" != gpu ]]; then refuse "found no manifest '$kind', wanted tpu or gpu"; fi
shift
check_places DATA RUN_DIR CACHE_DIR
for flag in --data --run-dir; do
  if value_of "$flag" "$@" >/dev/null; then refuse "$flag is set by DATA and RUN_DIR: leave it out"; fi
done
for word in "$@"; do
  if [[ "$kind" == gpu && "$word" == --distributed.* ]]; then refuse "$word is set by the manifest: leave it out"; fi
done
# Its pods are called NAME-worker-0-INDEX-xxxxx, in at most 63 letters.
check_name "$NAME" 42
check_numbers CHIPS GPUS GRACE_SECONDS MOST_RESTARTS
if [[ ! "$RUN_AS" =~ ^[0-9]+$ ]]; then refuse "RUN_AS is '$RUN_AS', wanted the number of a user"; fi
if [[ "$kind" == tpu ]]; then
  if [[ ! "$TOPOLOGY" =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]]; then refuse "TOPOLOGY is '$TOPOLOGY', wanted 4x4 or 2x2x4 or such"; fi
  chips=$((${TOPOLOGY//x/*}))
  if ((chips % CHIPS)); then refuse "TOPOLOGY $TOPOLOGY has $chips chips, which are no whole machines of CHIPS $CHIPS"; fi
  : "${MACHINES:=$((chips / CHIPS))}"
  if [[ "$MACHINES" != $((chips / CHIPS)) ]]; then refuse "TOPOLOGY $TOPOLOGY has $((chips / CHIPS)) machines of CHIPS $CHIPS, not MACHINES $MACHINES"; fi
fi
: "${MACHINES:=2}"
check_numbers MACHINES
check_command pretrain "$RECIPE" --data "$DATA" --run-dir "$RUN_DIR" "$@"

declare -A value
for name in IMAGE DATA RUN_DIR RECIPE NAME CACHE_DIR TPU TOPOLOGY GPU; do value[$name]=$(quoted "${!name}"); done
for name in MACHINES CHIPS GPUS RUN_AS GRACE_SECONDS MOST_RESTARTS; do value[$name]=${!name}; done
value[PROCESSES]="\"$MACHINES\""
value[COORDINATOR]="\"$NAME-worker-0-0.$NAME:1234\""  # JobSet's name of the first pod
value[FURTHER]=''
for word in "$@"; do
  word=$(quoted "$word")
  value[FURTHER]+=", $word"
done

body=$(filled_in "$(dirname "$0")/$kind.yaml")
create "$NAME" JobSet jobsets.jobset.x-k8s.io 'train beside it' "$body"
