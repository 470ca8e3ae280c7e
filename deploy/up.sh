#!/usr/bin/env bash
# From a bare checkout to a running stack and a finished demo job. Every step looks first whether there is anything to do, so a second
# run changes nothing.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

AGAIN="Then run make up again: it goes on where it stopped."
began=$SECONDS
echo "Bailey $VERSION, stack $BAILEY_STACK in $BAILEY_HOME"
step engine "Docker Engine" "Bailey needs Linux on x86_64 and a Docker Engine that you may use (root, or the group docker). $AGAIN" deploy/engine.sh
step compose "Docker Compose" "Install Docker Compose 2.20 or newer. $AGAIN" deploy/compose.sh
step settings "settings (.env)" "Correct the setting named above. $AGAIN" deploy/settings.sh
step binaries "static binaries" "The build failed: see above. $AGAIN" deploy/binaries.sh
step images "images of the services" "Building an image failed: see above. $AGAIN" deploy/images.sh
step bases "base images for plugins" "Is the Debian mirror reachable? $AGAIN" deploy/base-images.sh
step plugins "first-party plugins" "See above. $AGAIN" deploy/stage-plugins.sh
step init "roots of trust, configuration" "Nothing of an existing root is ever overwritten; see above for what is in the way. $AGAIN" deploy/init.sh
step stack "the stack" "See above, and: docker compose ps, docker compose logs SERVICE. $AGAIN" deploy/start.sh
step genesis "vault, first token, first lock" "See above, and: docker compose logs broker. $AGAIN" deploy/genesis.sh
step ready "every service is ready" "See above, and: docker compose ps, docker compose logs SERVICE. $AGAIN" deploy/ready.sh
echo
deploy/demo.sh
echo
sed "s/^  //" <<END
  Up in $((SECONDS - began)) s.
    Status page and, with a later release, the Control UI:  $(way_in)
    CLI:             $BUILD/bin/bailey status        (bailey --help)
    API token:       $BAILEY_HOME/secrets/api.token
    Configuration:   $BAILEY_HOME/config/            (make it take effect: bailey plugin lock --all)
    Own plugins:     $BAILEY_HOME/plugin-roots/mine/
    make down stops the stack, make clean removes it.
END
