#!/usr/bin/env bash
# Starts what does not run yet; what runs unchanged is left alone. The other way in goes, when the posture has changed.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

if [[ $COMPOSE_PROFILES == tailnet ]]; then other=ingress-local; else other=tailscale; fi
COMPOSE_PROFILES=local,tailnet compose rm --force --stop "$other" >/dev/null
compose up --detach --no-build --remove-orphans
echo "= $(compose ps --quiet | wc -l) containers"
