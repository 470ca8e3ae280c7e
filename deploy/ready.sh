#!/usr/bin/env bash
# Readiness is what the services say of themselves and of each other, not what Docker says of their processes.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# In the tailnet posture nothing on this host reaches the API, so Docker's health checks are all that can be asked. The sidecar is
# healthy once its node has joined.
unhealthy() {
  local all
  all=$(docker ps --all --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" \
    --format '{{.Label "com.docker.compose.service"}}: {{.Status}}') || fail "Docker does not list the containers"
  sed '/(healthy)$/d' <<<"$all"
}

if [[ $COMPOSE_PROFILES == tailnet ]]; then
  deadline=$((SECONDS + 180))
  while true; do
    missing=$(unhealthy)
    [[ -n $missing ]] || break
    ((SECONDS < deadline)) || fail "not healthy after 3 minutes: $missing"
    sleep 1
  done
  echo "= all healthy, as far as Docker can tell"
  exit
fi
bailey status --wait=90s

# The plugins' images are in the engine alone: no backup has them, and on another machine they are not there.
sealed_images() {
  sed -nE 's/^ *"payload": *"([^"]*)".*/\1/p' "$BAILEY_HOME/config/bailey.lock" | base64 -d |
    grep -oE '"image":"sha256:[0-9a-f]{64}"' | grep -oE 'sha256:[0-9a-f]{64}' | sort -u
}

for image in $(sealed_images); do
  docker image inspect "$image" >/dev/null 2>&1 ||
    fail "images of plugins are not in this Docker Engine: \`bailey plugin lock --all\` makes them again from plugin-roots/, and says what that would change"
done
