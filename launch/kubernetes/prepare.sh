#!/usr/bin/env bash
# `bert-jax prepare` on Ray in the cluster of the current kubectl context, by KubeRay; further words are flags of `prepare`,
# and after a bare -- Ray's own. DRY_RUN=1 prints the manifest and does nothing.
# IMAGE=… INPUT='gs://…/*.jsonl.zst' VOCABULARY=gs://…/vocab.txt OUTPUT=gs://… [DRY_RUN=1] launch/kubernetes/prepare.sh [--seed 1 …]
set -euo pipefail
# shellcheck source=launch/shared.sh
source "$(dirname "$0")/../shared.sh"
# shellcheck source=launch/kubernetes/shared.sh
source "$(dirname "$0")/shared.sh"

# Every setting, a variable of the environment each.
: "${IMAGE:?set IMAGE to what the Dockerfile made with EXTRAS=input,ray,gcs}"
: "${INPUT:?set INPUT to the text, on storage that all machines reach}"
: "${VOCABULARY:?set VOCABULARY to its file, on such storage or in the image}"
: "${OUTPUT:?set OUTPUT to where the shards go, on storage that all machines reach}"
: "${NAME:=$(name_of "$OUTPUT")}"            # of the RayJob
: "${WORKERS:=8}"                            # pods, beside the head
: "${CPUS:=15}"                              # of a worker's pod, each for one task: a machine of 16 keeps some for itself
: "${MEMORY:=48Gi}"                          # of a worker's pod: 340 MB for each task, and as much again of objects
: "${DISK:=50Gi}"                            # of a pod; those of all pods together: twice the shards, at least
: "${HEAD_CPUS:=4}"                          # of the head's pod: readers of text run there too
: "${HEAD_MEMORY:=32Gi}"                     # of the head's pod
: "${SERVICE_ACCOUNT:=default}"              # that may read INPUT and write OUTPUT
: "${RUN_AS:=1000}"                          # the user, as the image has it
: "${RETRIES:=2}"                            # with a new cluster, where the driver or the head is lost
: "${KEEP_SECONDS:=600}"                     # for which the cluster, and Ray's logs in it, stay after the end
: "${KUBECTL:=kubectl}"                      # with further words, as in kubectl --context C --namespace N
: "${BERT_JAX:=bert-jax}"                    # the command that checks the flags, where it is here

own=() of_ray=()
while (($#)); do
  if [[ "$1" == -- ]]; then shift; of_ray=("$@"); break; fi
  own+=("$1"); shift
done
for flag in --input --vocabulary --output --engine --address; do
  if value_of "$flag" "${own[@]}" "${of_ray[@]}" >/dev/null; then
    refuse "$flag is set by INPUT, VOCABULARY, OUTPUT and the manifest: leave it out"
  fi
done
check_places INPUT OUTPUT
if [[ "$VOCABULARY" != *://* && "$VOCABULARY" != /* ]]; then
  refuse "VOCABULARY is '$VOCABULARY', wanted gs://… or such, or a path in the image from its root"
fi
# KubeRay adds to it for the cluster and its pods, in at most 63 letters.
check_name "$NAME" 42
check_numbers WORKERS CPUS HEAD_CPUS
for name in MEMORY HEAD_MEMORY DISK; do
  if [[ ! "${!name}" =~ ^[1-9][0-9]*[KMGT]i?$ ]]; then refuse "$name is '${!name}', wanted such as 48Gi"; fi
done
for name in RUN_AS RETRIES KEEP_SECONDS; do
  if [[ ! "${!name}" =~ ^[0-9]+$ ]]; then refuse "$name is '${!name}', wanted a whole number"; fi
done
words=(prepare --input "$INPUT" --vocabulary "$VOCABULARY" --output "$OUTPUT" "${own[@]}" --engine ray)
check_words prepare "${words[@]}" --dry-run

# One word of a shell, whatever is in it.
one_word() { printf "'%s' " "${1//\'/\'\\\'\'}"; }
command=''
for word in bert-jax "${words[@]}" -- --address=auto "${of_ray[@]}"; do command+=$(one_word "$word"); done

declare -A value
for name in IMAGE NAME MEMORY HEAD_MEMORY DISK SERVICE_ACCOUNT; do value[$name]=$(quoted "${!name}"); done
for name in WORKERS RUN_AS RETRIES KEEP_SECONDS; do value[$name]=${!name}; done
for name in CPUS HEAD_CPUS; do value[$name]="\"${!name}\""; done
value[COMMAND]=$(quoted "${command% }")
value[COMMAND]=${value[COMMAND]//\$\$(/\$(}  # it is no field of a pod: $( stays what it is

body=$(filled_in "$(dirname "$0")/prepare.yaml")
create "$NAME" RayJob rayjobs.ray.io 'prepare the same beside it' "$body"
