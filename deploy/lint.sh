#!/usr/bin/env bash
# What can be judged without running anything.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

step fmt "formatting" "Run: make fmt" cargo fmt --all --check
step clippy "clippy" "Correct what clippy says." cargo clippy --locked --workspace --all-targets -- -D warnings
if command -v cargo-deny >/dev/null; then
  step deny "dependency rules (deny.toml)" "See deny.toml: each exception needs a reason." cargo deny --offline check bans sources
fi
if command -v shellcheck >/dev/null; then
  step shellcheck "shell scripts" "Correct what shellcheck says." shellcheck deploy/*.sh tests/fixtures/*.sh .ci/run
fi
