#!/usr/bin/env bash
# Copies the stack's volumes into a folder (save), or out of it (load), while the stack is down. With the folders that home.sh copies
# they are the stack. Owners, modes, links and labels come along; sockets, file capabilities and access lists do not, which the stack
# has no use for. Nothing that is there is written over.
set -euo pipefail
shopt -s inherit_errexit
. "$(dirname "$0")/lib.sh"
# One order everywhere.
export LC_ALL=C

# What a copy consists of, and what it must hash to.
MANIFEST=manifest.sha256
# Exact, where names are not: a stack may be called like the beginning of another.
LABELS=("com.docker.compose.project=$COMPOSE_PROJECT_NAME" "bailey.stack=$BAILEY_STACK")

# What Compose makes for the stack, and what it makes itself.
names() {
  local label
  for label in "${LABELS[@]}"; do docker volume ls --quiet --filter "label=$label"; done | sort --unique
}

running() {
  local label
  for label in "${LABELS[@]}"; do docker ps --quiet --filter "label=$label"; done
}

# A volume that is there while others are loaded: they are not whole before it is gone.
loading() { docker volume ls --quiet --filter "label=bailey.loading=$BAILEY_STACK"; }

manifest() {
  local files=(./*.tar ./*.labels)
  echo "# stack $BAILEY_STACK, files ${#files[@]}"
  sha256sum "${files[@]}"
}

save() {
  local name saved broken count=0
  saved=$(names)
  broken=$(loading)
  [[ -n $saved ]] || fail "the stack $BAILEY_STACK has no volumes"
  [[ -z $broken ]] || fail "these volumes are not whole, a load broke off: repeat it (deploy/volumes.sh load FOLDER)"
  [[ ! -e $1 ]] || fail "$1 is there, and nothing is written over"
  [[ -d $(dirname "$1") ]] || fail "the folder $(dirname "$1") is not there"
  need_tools
  # All of it is as secret as the stack.
  umask 077
  # A copy is whole or not there.
  partial=$1.partial
  mkdir "$partial" || fail "if a save left it, remove it"
  trap 'rm -rf "$partial"' EXIT
  while read -r name; do
    as_root "$name:/volume:ro" tar --warning=no-file-ignored --numeric-owner -C /volume -c . </dev/null >"$partial/$name.tar"
    docker volume inspect --format '{{range $name, $value := .Labels}}{{$name}}={{$value}}{{println}}{{end}}' "$name" >"$partial/$name.labels"
    count=$((count + 1))
  done <<<"$saved"
  (cd "$partial" && manifest >"$MANIFEST")
  sync --file-system "$partial"
  mv --no-target-directory "$partial" "$1"
  trap - EXIT
  echo "$count volumes are in $1"
}

# The names of the volumes in the copy; fails unless it is all that was saved, and of this stack.
copied() {
  local file name
  [[ -f $1/$MANIFEST ]] || fail "$1 is no copy that volumes.sh made: it has no $MANIFEST"
  (cd "$1" && sha256sum --check --strict --quiet "$MANIFEST" >&2) || fail "$1 is not what was saved"
  (cd "$1" && manifest | cmp --silent - "$MANIFEST") || fail "$1 is not what was saved of the stack $BAILEY_STACK: $(head -n 1 "$1/$MANIFEST")"
  for file in "$1"/*.tar; do
    name=$(basename "$file" .tar)
    grep --quiet --line-regexp --fixed-strings "${LABELS[@]/#/--regexp=}" "$1/$name.labels" ||
      fail "$file is no volume of the stack $BAILEY_STACK"
    echo "$name"
  done
}

load() {
  local name there copied broken labels count=0
  copied=$(copied "$1")
  there=$(names)
  broken=$(loading)
  if [[ -n $broken ]]; then
    # All that is there was made by a load that broke off; what else would be there must not be removed.
    there=$(comm -12 <(echo "$there") <(echo "$copied"))
    if [[ -n $there ]]; then echo "$there" | xargs docker volume rm >/dev/null; fi
    there=$(names)
  fi
  [[ -z $there ]] || fail "the stack $BAILEY_STACK has volumes, and nothing is written over: remove them first, if that is what you want"
  # By their names too: one without labels would be taken as it is.
  while read -r name; do
    ! docker volume inspect "$name" >/dev/null 2>&1 || fail "there is a volume $name, and nothing is written over"
  done <<<"$copied"
  need_tools
  docker volume create --label "bailey.loading=$BAILEY_STACK" "bailey-$BAILEY_STACK.loading" >/dev/null
  while read -r name; do
    mapfile -t labels < <(sed -n 's/^..*$/--label=&/p' "$1/$name.labels")
    docker volume create "${labels[@]}" "$name" >/dev/null
    as_root "$name:/volume" tar --numeric-owner -C /volume -xp <"$1/$name.tar"
    count=$((count + 1))
  done <<<"$copied"
  docker volume rm "bailey-$BAILEY_STACK.loading" >/dev/null
  echo "$count volumes are as they were saved"
}

usage="deploy/volumes.sh save FOLDER, or deploy/volumes.sh load FOLDER"
(($# == 2)) || fail "$usage"
docker version >/dev/null || fail "no Docker Engine answers; deploy/engine.sh installs one on Debian"
busy=$(running)
[[ -z $busy ]] || fail "the stack runs and writes: make down first"
case $1 in
save | load) "$1" "${2%/}" ;;
*) fail "$usage" ;;
esac
