#!/usr/bin/env bash
# Everything that CI runs: lint, all tests of all crates, then the assembled stack.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

# Where time and disk go: what begins now, after how long, and what is free.
section() { printf '%3d:%02d  %-22s %s GiB free\n' "$((SECONDS / 60))" "$((SECONDS % 60))" "$1" "$(free_gib)"; }

free_gib() { df --output=avail --block-size=1M . | awk 'END { printf "%.1f", $1 / 1024 }'; }

# The vault must be readable by the standard tool, on disks that are full or read-only too.
for tool in age unshare; do
  command -v "$tool" >/dev/null || fail "the tests need \`$tool\`: apt-get install age util-linux"
done
section "lint"
deploy/lint.sh
step engine "Docker Engine" "Start Docker, then run this again." deploy/engine.sh
step compose "Docker Compose" "Install Docker Compose 2.20 or newer." deploy/compose.sh
# The runner's tests run real cells.
step bases "base images for plugins" "See the log." deploy/base-images.sh
section "tests of the crates"
# Shown as it runs: whoever reads CI wants the failing test, not the last lines of a log.
cargo test --locked --quiet --workspace --exclude stack-tests
step plugins-py "tests of the Python plugins" "A test failed: see the log." deploy/test-plugins.sh
# The tests of the stack take what `make up` would take.
step binaries "static binaries" "See the log." deploy/binaries.sh
step images "images" "See the log." deploy/images.sh
section "tests of the stack"
cargo test --locked --quiet --package stack-tests
section "done"
