#!/usr/bin/env bash
# The tests of the Python plugins, with nothing but the standard library.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

command -v python3 >/dev/null || fail "The tests of the Python plugins need python3."
export PYTHONDONTWRITEBYTECODE=1
for tests in plugins/*/tests; do
  echo "== $tests"
  (cd "${tests%/tests}" && python3 -m unittest discover -s tests)
done
