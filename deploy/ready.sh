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
