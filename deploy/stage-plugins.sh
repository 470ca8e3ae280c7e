#!/usr/bin/env bash
# Copies what a plugin is made of (manifest and entrypoint, nothing else) from plugins/ into plugin-roots/first-party. A folder that has
# not changed is not touched, so its seal stays good.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

TARGET=$BAILEY_HOME/plugin-roots/first-party

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
changed=0 total=0
for manifest in "$ROOT"/plugins/*/manifest.yaml; do
  source=${manifest%/*}
  name=${source##*/}
  # The author's template is for copying, not for running.
  if [[ $name == template ]]; then continue; fi
  entrypoint=$(sed -n 's/^entrypoint: *//p' "$manifest")
  staged=$work/$name
  install -d -m 0755 "$staged"
  install -m 0644 "$manifest" "$staged/manifest.yaml"
  if [[ -f $source/Cargo.toml ]]; then
    install -m 0755 "$BUILD/bin/$entrypoint" "$staged/$entrypoint"
  else
    install -m 0755 "$source/$entrypoint" "$staged/$entrypoint"
  fi
  total=$((total + 1))
  if ! diff -rq "$staged" "$TARGET/$name"; then
    rm -rf "${TARGET:?}/$name"
    cp -a "$staged" "$TARGET/$name"
    changed=$((changed + 1))
  fi
done
if ((changed)); then echo "= $changed of $total copied"; else echo "= unchanged ($total plugins)"; fi
