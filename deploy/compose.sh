#!/usr/bin/env bash
# Compose 2.20 or newer: what is there, else Debian's docker-compose package of the suite that first had one.
# The one-off source list and its index live in a temporary folder: the machine's own lists are not touched.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
SUITE=trixie

version() {
  docker compose version --short 2>/dev/null | sed 's/^v//'
}

new_enough() {
  local major minor
  IFS=. read -r major minor _ <<<"$1"
  [[ $major =~ ^[0-9]+$ && $minor =~ ^[0-9]+$ ]] && ((major > 2 || (major == 2 && minor >= 20)))
}

# The Debian mirror that this machine already uses.
mirror() {
  local file
  for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    [[ -f $file ]] || continue
    sed -nE -e 's/^URIs:[[:space:]]*([^[:space:]]+).*/\1/p' \
      -e 's/^deb[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]+)[[:space:]].*/\2/p' "$file" | grep -E '/debian/?$' | head -n 1
    return
  done
}

install() {
  local hint="Install Docker Compose 2.20 or newer (docker compose version)." uri work
  ((EUID == 0)) || fail "Docker Compose is missing and only root can install it. $hint"
  command -v apt-get >/dev/null || fail "Docker Compose is missing, and this host has no apt. $hint"
  uri=$(mirror)
  [[ -n $uri && -f $KEYRING ]] || fail "Docker Compose is missing, and this is no Debian. $hint"
  work=$(mktemp -d)
  # shellcheck disable=SC2064 # The folder's name is meant to be fixed now.
  trap "rm -rf '$work'" EXIT
  # apt reads the list as its own unprivileged user.
  chmod 0755 "$work"
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
  echo "deb [signed-by=$KEYRING] $uri $SUITE main" >"$work/compose.list"
  local apt=(apt-get -o "Dir::Etc::sourcelist=$work/compose.list" -o Dir::Etc::sourceparts=-
    -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache")
  "${apt[@]}" update
  # Without its recommendations: docker-cli of that suite would remove the engine of this one.
  DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends --no-remove docker-compose
}

found=$(version || true)
if [[ -z $found ]]; then
  install
  found=$(version) || fail "docker-compose was installed, but \`docker compose version\` does not answer"
fi
new_enough "$found" || fail "Docker Compose $found is too old: 2.20 or newer is needed."
echo "= Docker Compose $found"
