#!/usr/bin/env bash
# Folders and .env of this stack. .env is written only when something in it changes, and lines that are not ours stay.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

[[ $BAILEY_STACK =~ ^[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?$ ]] ||
  fail "BAILEY_STACK is \"$BAILEY_STACK\"; a stack id has 1 to 32 lower-case letters, digits and, inside, - and _."
if ! [[ $BAILEY_PORT =~ ^[1-9][0-9]{0,4}$ ]] || ((BAILEY_PORT > 65535)); then fail "BAILEY_PORT is \"$BAILEY_PORT\"; it must be a port number."; fi
[[ $BAILEY_HOME != *[[:space:]\'\"\$]* ]] || fail "The path $BAILEY_HOME has blanks, quotes or dollar signs; Compose cannot carry it."

mkdir -p "$BAILEY_HOME"/{config,secrets,plugin-roots/first-party,plugin-roots/mine}
# The services are other uids, and read these, whatever the umask was. Nobody else writes what is sealed.
chmod 0755 "$BAILEY_HOME"/plugin-roots{,/first-party,/mine}
find "$ROOT/tailscale" ! -perm -o=r -exec chmod go+rX {} +
# The sidecar's secret has to exist for Compose; empty means: no tailnet, loopback only.
if [[ ! -e $BAILEY_HOME/secrets/ts_authkey ]]; then (umask 077 && : >"$BAILEY_HOME/secrets/ts_authkey"); fi

OURS=(BAILEY_HOME BAILEY_STACK BAILEY_TAG BAILEY_PORT BAILEY_OWNER DOCKER_SOCKET DOCKER_GID COMPOSE_PROFILES)
export DOCKER_GID
DOCKER_GID=$(stat -Lc %g "$DOCKER_SOCKET")
new=$(mktemp)
trap 'rm -f "$new"' EXIT
if [[ -f $BAILEY_HOME/.env ]]; then
  grep -vE "^($(IFS='|'; echo "${OURS[*]}"))=|^# Written by" "$BAILEY_HOME/.env" >"$new" || true
fi
{
  echo "# Written by make up; settings of your own may stand here too."
  for name in "${OURS[@]}"; do echo "$name=${!name}"; done
} >>"$new"
if cmp -s "$new" "$BAILEY_HOME/.env"; then
  echo "= unchanged (stack $BAILEY_STACK, ${COMPOSE_PROFILES} posture)"
else
  cat "$new" >"$BAILEY_HOME/.env"
  echo "= stack $BAILEY_STACK, ${COMPOSE_PROFILES} posture"
fi
