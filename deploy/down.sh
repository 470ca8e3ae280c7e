#!/usr/bin/env bash
# Stops and removes the stack's containers and networks. Volumes, secrets, configuration and images stay.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

status=0
stop_in_order
# An engine that forgets to count an endpoint keeps the network; that must not leave cells behind.
compose --profile '*' down --remove-orphans --timeout 6 || status=$?
# Cells are not Compose's: the runner would remove them at its next start.
mapfile -t cells < <(docker ps --all --quiet --filter "label=bailey.stack=$BAILEY_STACK")
if ((${#cells[@]})); then docker rm --force --volumes "${cells[@]}" >/dev/null; fi
exit "$status"
