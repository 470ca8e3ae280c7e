#!/usr/bin/env bash
# Roots of trust and the starter configuration, made by the one-shot container `init`. Where they exist, it only sets their owners.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# A stack that found them so would begin anew beside what is lost.
broken=$(docker volume ls --quiet --filter "label=bailey.loading=$BAILEY_STACK")
[[ -z $broken ]] || fail "the volumes are not whole, a load broke off: repeat it (deploy/volumes.sh load FOLDER)"

[[ ! -e $BAILEY_HOME/.home.partial ]] ||
  fail "a load of config/ and secrets/ broke off: move what is in $BAILEY_HOME/.home.partial beside it, or remove .env, config, secrets, plugin-roots and load again (deploy/home.sh load FILE)"

note="made in secrets/ and config/"
if [[ -e $BAILEY_HOME/secrets/age.key && -n $(ls "$BAILEY_HOME/config") ]]; then note=unchanged; fi
compose run --rm --no-TTY init
echo "= $note"
