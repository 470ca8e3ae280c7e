#!/usr/bin/env bash
# The images that directory plugins are sealed onto: `none` (static binaries), `python`, `tools`. Made of Debian packages, so that no
# container registry is needed. Tagged by the hash of what they are made of and rebuilt only when that changes, because a new image id
# breaks every seal; `current` is the name for configuration.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
# Other uids read what is in an image.
umask 022

PYTHON=(python3 coreutils tzdata)
TOOLS=("${PYTHON[@]}" bash ca-certificates curl dash findutils gawk git grep gzip jq openssh-client sed tar)

# Nobody's home or current folder is ever searched for code. The plugin's own folder is: it is sealed and read-only.
ENVIRONMENT=(PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 GIT_CONFIG_GLOBAL=/dev/null)

# Makes two runs of one package list alike. 2025-01-01.
export SOURCE_DATE_EPOCH=1735689600

debian_sources() {
  local file
  for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    if [[ -s $file ]]; then
      echo "$file"
      return
    fi
  done
}

suite() {
  # shellcheck disable=SC1091 # Of the host.
  (. /etc/os-release && [[ ${ID:-} == debian ]] && echo "${VERSION_CODENAME:-}") || true
}

# tag_of NAME SUITE PACKAGES...
tag_of() {
  cat "$ROOT/deploy/base-image-hook.sh" <(printf '%s\n' "$SOURCE_DATE_EPOCH" "${ENVIRONMENT[@]}" "$@") | sha256sum | cut -c 1-12
}

import() {
  local changes=(--change 'LABEL bailey.image.base=true') variable
  for variable in "${ENVIRONMENT[@]}"; do changes+=(--change "ENV $variable"); done
  docker import "${changes[@]}" - "$1"
}

# Not a byte of an operating system: a static binary brings its own.
make_none() {
  local root
  root=$(mktemp -d)
  mkdir -p "$root"/{etc,home/plugin,state,tmp}
  chmod 0777 "$root"/{home/plugin,state} # As in the hook.
  echo 'root:x:0:0::/:/nonexistent' >"$root/etc/passwd"
  echo 'root:x:0:' >"$root/etc/group"
  tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$root" -c . | import "$1"
  rm -r "$root"
}

# `extract` unpacks packages and their dependencies and runs none of their scripts: nothing essential comes along unasked.
make_debian() {
  local image=$1 packages sources
  shift
  packages=$(IFS=,; echo "$*")
  sources=$(debian_sources)
  mmdebstrap --variant=extract --format=tar --include="$packages" --extract-hook="$ROOT/deploy/base-image-hook.sh" "$suite" "$tar" "$sources"
  import "$image" <"$tar"
}

# Where the host is no Debian: the same packages on Debian's own image, if a registry answers.
make_in_docker() {
  local image=$1 id
  shift
  timeout 600 docker pull debian:bookworm-slim ||
    fail "The base images for plugins need a Debian host (mmdebstrap) or a container registry; neither is here."
  id=$(docker create debian:bookworm-slim sh -c 'apt-get update && apt-get install -y --no-install-recommends "$@" && rm -rf /var/lib/apt/lists/* && sh /hook /' hook "$@")
  docker cp "$ROOT/deploy/base-image-hook.sh" "$id:/hook"
  docker start --attach "$id"
  docker export "$id" | import "$image"
  docker rm "$id"
}

# base NAME PACKAGES...
base() {
  local name=$1 image
  shift
  # Carried over from another machine: the host cannot make its own, and a new one would break every seal.
  if [[ -z $suite ]] && docker image inspect "bailey/base-$name:current" >/dev/null 2>&1; then return; fi
  image=bailey/base-$name:$(tag_of "$name" "$suite" "$@")
  if ! docker image inspect "$image" >/dev/null 2>&1; then
    if (($# == 0)); then
      make_none "$image"
    elif [[ -n $suite ]]; then
      make_debian "$image" "$@"
    else
      make_in_docker "$image" "$@"
    fi
    built+=("$name")
  fi
  docker tag "$image" "bailey/base-$name:current"
}

suite=$(suite)
built=()
tar=$(mktemp)
trap 'rm -f "$tar"' EXIT
if [[ -n $suite ]] && ! command -v mmdebstrap >/dev/null; then
  if ((EUID == 0)); then
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends mmdebstrap
  else
    suite=
  fi
fi
base none
base python "${PYTHON[@]}"
base tools "${TOOLS[@]}"
if ((${#built[@]})); then echo "= built ${built[*]}"; else echo "= unchanged"; fi
