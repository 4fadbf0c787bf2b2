# What the launchers of Kubernetes share; sourced, not run, after ../shared.sh.
# shellcheck shell=bash

# A text as JSON has it, which YAML reads; Kubernetes would take $(A) for the variable A.
quoted() {
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  if [[ "$text" == *[[:cntrl:]]* ]]; then refuse "a setting holds a letter that is not to be seen: $(printf %q "$1")"; fi
  printf '"%s"' "${text//\$(/\$\$(}"
}

# Ends where a name is none of a DNS label of so many letters.
check_name() {
  if ((${#1} > $2)) || [[ ! "$1" =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]]; then
    refuse "NAME is '$1', wanted at most $2 of a-z, 0-9 and -, a letter first"
  fi
}

# Ends where a variable of these names is no place that all machines reach.
check_places() {
  local name
  for name in "$@"; do
    if [[ "${!name}" != *://* ]]; then refuse "$name is '${!name}', wanted gs://… or such, which all machines reach"; fi
  done
}

# Ends where a variable of these names is no whole number from 1.
check_numbers() {
  local name
  for name in "$@"; do
    if [[ ! "${!name}" =~ ^[1-9][0-9]*$ ]]; then refuse "$name is '${!name}', wanted a whole number"; fi
  done
}

# A manifest, its places filled in by the array `value`.
filled_in() {
  local body filled='' place name
  body=$(<"$1")
  while [[ "$body" =~ __([A-Z]+(_[A-Z]+)*)__ ]]; do
    place=${BASH_REMATCH[0]} name=${BASH_REMATCH[1]}
    if [[ -z "${value[$name]+set}" ]]; then refuse "${1##*/} has $place, which nothing fills in"; fi
    filled+=${body%%"$place"*}${value[$name]}
    body=${body#*"$place"}
  done
  printf '%s\n' "$filled$body"
}

# Creates what a manifest says, unless it is there already; with DRY_RUN=1 prints it. The kind: its name, in the plural
# with its group, and in words what another NAME would do.
create() {
  local name=$1 kind=$2 plural=$3 otherwise=$4 body=$5 there
  local -a client
  read -ra client <<<"$KUBECTL"
  if [[ "${DRY_RUN:-0}" == 1 ]]; then
    show "${client[@]}" create -f -
    echo "$body"
    return
  fi
  command -v "${client[0]}" >/dev/null || refuse "${client[0]} is not here: kubernetes.io/docs/tasks/tools"
  there=$("${client[@]}" get "$plural/$name" --ignore-not-found --output name) \
    || refuse "the cluster does not say what ${kind}s it has; kubectl says why above; nothing was created"
  if [[ -n "$there" ]]; then
    refuse "there is a $kind $name already, of this run: $KUBECTL delete ${kind,,} $name ends it and makes room; another NAME would $otherwise"
  fi
  run "${client[@]}" create -f - <<<"$body"
}
