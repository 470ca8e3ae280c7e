#!/usr/bin/env bash
# The demo: an event enters, a pipeline of two steps runs (Python, then a static binary), the first with a secret from the vault. It proves
# that it holds the secret by an HMAC over a fresh challenge; the proof is checked here, the secret is printed nowhere.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

if [[ $COMPOSE_PROFILES == tailnet ]]; then
  echo "No demo here: it calls the API, which only devices of your tailnet reach."
  exit
fi

SECRET=$BAILEY_HOME/secrets/demo.key

# hmac MESSAGE: HMAC-SHA256 (RFC 2104) with the key in $SECRET, 64 characters: one block. Only builtins see the key, so no argument
# list of a process shows it.
hmac() {
  local key inner='' outer='' byte i
  key=$(<"$SECRET")
  for ((i = 0; i < 64; i++)); do
    printf -v byte '%d' "'${key:i:1}"
    printf -v inner '%s\\x%02x' "$inner" $((byte ^ 0x36))
    printf -v outer '%s\\x%02x' "$outer" $((byte ^ 0x5c))
  done
  {
    printf '%b' "$outer"
    printf '%b' "$({ printf '%b' "$inner"; printf '%s' "$1"; } | sha256sum | cut -c 1-64 | sed 's/../\\x&/g')"
  } | sha256sum | cut -c 1-64
}

challenge=$(od -An -N 16 -tx1 /dev/urandom | tr -d ' \n')
payload="{\"name\":\"$(id -un)\",\"challenge\":\"$challenge\"}"
echo "Demo: event demo.requested $payload"
job=$(bailey event emit demo.requested --payload "$payload" --json | tr -d '\n' | sed -nE 's/.*"job_ids": *\[ *"([^"]*)".*/\1/p')
[[ -n $job ]] || fail "no pipeline waits for demo.requested: see config/pipelines.yaml, and lock it: bailey plugin lock --all"

# A step's job exists before the one it came from is done, so "nothing is open" means that all is done.
deadline=$((SECONDS + 60))
while tree=$(bailey job inspect "$job" --json) && grep -qE '"status": *"(queued|running)"' <<<"$tree"; do
  ((SECONDS < deadline)) || fail "job $job is not done after a minute: $BUILD/bin/bailey job inspect $job"
  sleep 0.2
done

echo
echo "What came of it (bailey job inspect $job):"
bailey job inspect "$job" | sed 's/^/  /'
if grep -oE '"status": *"[^"]*"' <<<"$tree" | grep -qv '"succeeded"'; then fail "a job of the demo did not succeed"; fi
echo
echo "What greet logged (bailey job logs $job):"
bailey job logs "$job" | sed 's/^/  /'
if [[ -r $SECRET ]]; then
  grep -q "$(hmac "$challenge")" <<<"$tree" || fail "the answer holds no proof over the challenge: greet did not have the secret"
  echo "  The proof is right: greet had the secret demo_key, and only an HMAC of it left the cell."
fi

echo
echo "On record (bailey audit verify):"
bailey audit verify | sed 's/^/  /'
