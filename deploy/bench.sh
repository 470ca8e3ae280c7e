#!/usr/bin/env bash
# Figures of the assembled stack beside the raw Docker API, in one run.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

step engine "Docker Engine" "Start Docker, then run this again." deploy/engine.sh
step compose "Docker Compose" "Install Docker Compose 2.20 or newer." deploy/compose.sh
step binaries "static binaries" "The build failed: see above." deploy/binaries.sh
cargo bench --locked --package stack-tests
