# What the launchers of clouds share; sourced, not run.
# shellcheck shell=bash

say() { echo "${0##*/}: $*" >&2; }

# Ends with 2, as `bert-jax` does where what was asked for cannot be.
refuse() { say "$@"; exit 2; }

show() { { printf '+'; printf ' %q' "$@"; echo; } >&2; }

# Prints a command, and runs it unless DRY_RUN=1.
run() {
  show "$@"
  if [[ "${DRY_RUN:-0}" != 1 ]]; then "$@"; fi
}

# The value of a flag among words, as in `--run-dir RUN` or `--run_dir=RUN`; 1 where it is not among them.
value_of() {
  local flag=$1 word
  shift
  while (($#)); do
    word=${1%%=*}
    if [[ "${word//_/-}" == "$flag" ]]; then
      if [[ "$1" == *=* ]]; then echo "${1#*=}"; elif (($# > 1)); then echo "$2"; else return 1; fi
      return 0
    fi
    shift
  done
  return 1
}

# The name of a run among those of other folders, as a DNS label: of its folder, and of its path what tells it from
# another folder of that name. JobSet adds to it for its pods, and all of it has at most 63 letters.
name_of() {
  local path=${1%%/} folder
  folder=$(LC_ALL=C tr '[:upper:]' '[:lower:]' <<<"${path##*/}" | LC_ALL=C tr -c 'a-z0-9\n' '-' | tr -s - | cut -c 1-24)
  folder=${folder#-}
  echo "bert-jax-${folder:+${folder%-}-}$(printf %08x "$(printf %s "$path" | cksum | cut -d ' ' -f 1)")"
}

# Whether a start after this exit code may go better (docs/checkpoints.md, "What ends a run, and what starts it again"):
# saved, nothing to save, stuck, storage failed, another process failed, a signal other than Ctrl-C.
may_pass() {
  case "$1" in
    3 | 4 | 5 | 7 | 13) return 0 ;;
    *) (($1 > 128 && $1 < 255 && $1 != 130)) ;;
  esac
}

# The exit code of a start whose processes ended with these, in the order in which they did: of what comes again the
# first, else the first failure, which is why the others ended; 0 where all did; 1 where there are none.
code_of() {
  local code
  for code in "$@"; do if ((code)) && ! may_pass "$code"; then echo "$code"; return; fi; done
  for code in "$@"; do if ((code)); then echo "$code"; return; fi; done
  if (($#)); then echo 0; else return 1; fi
}

# Checks a command by the program itself, where that is here: by the words after its name. Ends with 2 where it would not
# run.
check_words() {
  local name=$1 bert_jax
  read -ra bert_jax <<<"${BERT_JAX:=bert-jax}"
  if ! command -v "${bert_jax[0]}" >/dev/null; then
    say "${bert_jax[0]} is not here: recipe and flags are checked only where they run"
  elif ! "${bert_jax[@]}" "${@:2}"; then
    refuse "\`bert-jax $name\` would not run so; nothing was created"
  fi
}

# The same of a command that trains.
check_command() { check_words "$1" supervise --dry-run -- "$@"; }
