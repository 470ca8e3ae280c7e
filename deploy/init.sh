#!/usr/bin/env bash
# Roots of trust and the starter configuration, made by the one-shot container `init`. Where they exist, it only sets their owners.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

before=$(ls "$BAILEY_HOME/config")
compose run --rm --no-TTY init
if [[ -z $before ]]; then echo "= made in secrets/ and config/"; else echo "= unchanged"; fi
