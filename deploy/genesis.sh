#!/usr/bin/env bash
# Once for each stack: the vault, the operator's token, the demo's secret, the first lock. No value ever reaches a terminal or a log.
# Later changes of plugins and configuration are the operator's to approve: nothing is locked here again.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

secrets=$BAILEY_HOME/secrets
did=()

# of_status FIELD: a field of the vault's status, as soon as the broker answers; 2 says that the vault is not open, which is an answer if there is one:
# a Docker that crashes ends so too.
of_status() {
  local deadline=$((SECONDS + 60)) status
  until status=$(cli vault status --json) || { (($? == 2)) && [[ -n $status ]]; }; do
    ((SECONDS < deadline)) || fail "the broker does not answer on its management socket"
    sleep 1
  done
  tr -d '\n' <<<"$status" | sed -nE "s/.*\"$1\": *\"?([^\",}]*)\"?.*/\1/p"
}

# Nothing can be changed in the vault before the audit log has what was done to it until now: that it was made, the first time.
# Nor before it was compared with the log: until then the status of an open vault has a detail.
await_audit() {
  local deadline=$((SECONDS + 60)) status
  until status=$(cli vault status --json | tr -d ' \n') && grep -q '"unrecorded":0[,}]' <<<"$status" && grep -q '"detail":""' <<<"$status"; do
    ((SECONDS < deadline)) || fail "the audit log does not take what was done to the vault, or does not tell whether it is the vault of now: docker compose logs audit broker"
    echo "waiting for the audit log"
    sleep 1
  done
}

# The first lock, on the host, which alone can say what a path of it is. A service that was started before the broker was there looks for it again
# only after 5 s, so socket-proxy may not be there yet. A lock that is in its place is made, though a service may take a while to go by it.
lock_all() {
  local deadline=$((SECONDS + 60)) said
  until said=$(bailey plugin lock --all --yes 2>&1) || [[ -e $BAILEY_HOME/config/bailey.lock ]]; do
    echo "$said"
    if ((SECONDS >= deadline)) || ! grep -q 'does not answer at' <<<"$said"; then fail "the first lock was not made"; fi
    sleep 1
  done
  echo "$said"
}

# The vault is there and open, or the reason why nothing goes on: what is made below must not be made for a vault that is missing.
state=$(of_status state)
case $state in
  open) ;;
  no_vault)
    if [[ -s $secrets/api.token ]]; then
      fail "there are keys but no vault: put a copy of it back (docs/how-to/recovery.md, New hardware); or, to begin with an empty one: docker run --rm --pull never --network none -v '$secrets:/secrets' $TOOLS_IMAGE rm -f /secrets/api.token /secrets/cli/admin.token, make up, and lock again (bailey plugin lock --all)"
    fi
    cli vault init
    did+=(vault)
    ;;
  *) fail "the vault is $(cli vault status)" ;;
esac
await_audit

if [[ ! -s $secrets/api.token ]]; then
  umask 077
  rm -f "$secrets/api.token"
  cli token create --name operator --scope '*' --out - >"$secrets/api.token.new"
  chmod 0400 "$secrets/api.token.new"
  mv "$secrets/api.token.new" "$secrets/api.token"
  did+=(token)
fi

held=$(cli vault list --json)
if ! grep -q '"demo_key"' <<<"$held"; then
  # Kept beside the other secrets, so that the demo can check the proof it gets. The one of before stays until the vault has this one.
  rm -f "$secrets/demo.key.new"
  (umask 0377 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$secrets/demo.key.new")
  # Nothing is locked yet, so nobody knows what it is.
  cli vault register-principal greet --kind plugin
  cli vault set demo_key --grant greet --description "the demo proves that it was given this" <"$secrets/demo.key.new"
  mv -f "$secrets/demo.key.new" "$secrets/demo.key"
  did+=("demo secret")
elif [[ -e $secrets/demo.key.new ]]; then
  # The vault took it, and then the machine stopped.
  mv -f "$secrets/demo.key.new" "$secrets/demo.key"
fi

if [[ ! -e $BAILEY_HOME/config/bailey.lock ]]; then
  lock_all
  did+=(lock)
fi
if ((${#did[@]})); then
  note=$(printf '%s, ' "${did[@]}")
  echo "= made: ${note%, }"
else
  echo "= unchanged"
fi
