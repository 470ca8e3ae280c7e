#!/usr/bin/env bash
# Copies what a stack has beside its volumes (config/, secrets/, plugin-roots/, .env) into a file (save), or out of it (load). Most of secrets/
# belongs to the services, so a container of ours does it, whoever calls. Nothing that is there is written over.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

PARTS=(.env config secrets plugin-roots)

save() {
  local part
  for part in "${PARTS[@]}"; do [[ -e $BAILEY_HOME/$part ]] || fail "$BAILEY_HOME/$part is not there"; done
  for part in "${PARTS[@]}" plugin-roots/first-party plugin-roots/mine; do
    [[ ! -L $BAILEY_HOME/$part ]] || fail "$BAILEY_HOME/$part is a link, and what it leads to would not be in the copy: copy that yourself, and put it there"
  done
  [[ ! -e $1 ]] || fail "$1 is there, and nothing is written over"
  [[ -d $(dirname "$1") ]] || fail "the folder $(dirname "$1") is not there"
  need_tools
  # It is as secret as what is in it, and whole or not there.
  umask 077
  partial=$1.partial
  rm -f "$partial"
  trap 'rm -f "$partial"' EXIT
  as_root "$BAILEY_HOME:/home:ro" tar --numeric-owner -C /home -cz "${PARTS[@]}" </dev/null >"$partial"
  sync "$partial"
  mv --no-target-directory "$partial" "$1"
  trap - EXIT
  echo "${PARTS[*]} are in $1"
}

load() {
  local part
  [[ -f $1 ]] || fail "there is no file $1"
  gzip --test <"$1" || fail "$1 is not what was saved"
  for part in "${PARTS[@]}"; do
    [[ ! -e $BAILEY_HOME/$part ]] || fail "$BAILEY_HOME/$part is there, and nothing is written over: move it away first"
  done
  need_tools
  # What was the owner's is the owner's of now: another machine may count its users otherwise. .env is always his.
  # shellcheck disable=SC2016 # Expanded in the container.
  as_root "$BAILEY_HOME:/home" sh -euc '
    owner=$1
    shift
    rm -rf /home/.home.partial
    # Half of the keys is of no use to anybody who should have them.
    trap "rm -rf /home/.home.partial" EXIT
    mkdir -m 0700 /home/.home.partial
    cd /home/.home.partial
    tar --numeric-owner -xzp "$@"
    chown --recursive --no-dereference --from="$(stat -c %u .env)" "$owner" .
    # From here on it is whole; where this breaks off, init.sh says so.
    trap - EXIT
    mv --no-clobber "$@" /home/
    rmdir /home/.home.partial
  ' load "${BAILEY_OWNER%:*}" "${PARTS[@]}" <"$1"
  echo "${PARTS[*]} are as they were saved"
}

usage="deploy/home.sh save FILE, or deploy/home.sh load FILE"
(($# == 2)) || fail "$usage"
docker version >/dev/null || fail "no Docker Engine answers; deploy/engine.sh installs one on Debian"
case $1 in
save | load) "$1" "$2" ;;
*) fail "$usage" ;;
esac
