#!/usr/bin/env bash
# Once for each stack: the vault, the operator's token, the demo's secret, the first lock. No value ever reaches a terminal or a log.
# Later changes of plugins and configuration are the operator's to approve: nothing is locked here again.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

secrets=$BAILEY_HOME/secrets
did=()

# The state of the vault, as soon as the broker answers.
vault_state() {
  local deadline=$((SECONDS + 60)) state
  until state=$(cli vault status --json); do
    ((SECONDS < deadline)) || fail "the broker does not answer on its management socket"
    sleep 1
  done
  tr -d '\n' <<<"$state" | sed -nE 's/.*"state": *"([^"]*)".*/\1/p'
}

if [[ ! -s $secrets/api.token ]]; then
  case $(vault_state) in
    open) ;;
    no_vault)
      cli vault init
      did+=(vault)
      ;;
    *) fail "the vault is sealed: is secrets/age.key the key it was made with?" ;;
  esac
  umask 077
  rm -f "$secrets/api.token"
  cli token create --name operator --scope '*' --out - >"$secrets/api.token.new"
  chmod 0400 "$secrets/api.token.new"
  mv "$secrets/api.token.new" "$secrets/api.token"
  did+=(token)
fi

if ! cli vault list --json | grep -q '"demo_key"'; then
  # Kept beside the other secrets, so that the demo can check the proof it gets.
  rm -f "$secrets/demo.key"
  (umask 0377 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$secrets/demo.key")
  cli vault set demo_key --grant greet --description "the demo proves that it was given this" <"$secrets/demo.key"
  did+=("demo secret")
fi

if [[ ! -e $BAILEY_HOME/config/bailey.lock ]]; then
  # On the host, which alone can say what a path of it is.
  bailey plugin lock --all --yes
  did+=(lock)
fi
if ((${#did[@]})); then
  note=$(printf '%s, ' "${did[@]}")
  echo "= made: ${note%, }"
else
  echo "= unchanged"
fi
