# shellcheck shell=bash
# Shared by the scripts in deploy/: where things are, the settings of this stack, one line per step. Sourced, never run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=$ROOT/build
VERSION=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")

# One name everywhere: crate, binary, image. `bailey` is the operator's CLI; its image serves `cli` and `init`.
# Used by the scripts that source this file.
# shellcheck disable=SC2034
IMAGES=(gateway engine policy runner broker scheduler audit worker socket-proxy egress-proxy ingress-local holder bailey)

# The stack's own folder: config/, secrets/, plugin-roots/, .env. The checkout, unless said otherwise (tests do).
BAILEY_HOME=${BAILEY_HOME:-$ROOT}
mkdir -p "$BAILEY_HOME"
BAILEY_HOME=$(cd "$BAILEY_HOME" && pwd)

fail() {
  printf '\nerror: %s\n' "$*" >&2
  exit 1
}

# setting NAME DEFAULT: the environment wins over .env, .env over the default.
setting() {
  local kept=
  if [[ -f $BAILEY_HOME/.env ]]; then
    kept=$(sed -n "s/^$1=//p" "$BAILEY_HOME/.env" | tail -n 1)
  fi
  printf -v "$1" '%s' "${!1:-${kept:-$2}}"
  export "${1?}"
}

setting BAILEY_STACK bailey
setting BAILEY_PORT 8443
setting BAILEY_TAG "$VERSION"
setting BAILEY_HOSTNAME bailey
setting DOCKER_SOCKET /var/run/docker.sock
BAILEY_OWNER=${BAILEY_OWNER:-$(id -u):$(id -g)}
COMPOSE_PROJECT_NAME=bailey-$BAILEY_STACK
if [[ -s $BAILEY_HOME/secrets/ts_authkey ]]; then COMPOSE_PROFILES=tailnet; else COMPOSE_PROFILES=local; fi
export BAILEY_HOME BAILEY_OWNER COMPOSE_PROJECT_NAME COMPOSE_PROFILES
# Every client here speaks to the engine whose socket the stack mounts.
export DOCKER_HOST=unix://$DOCKER_SOCKET

compose() {
  local settings=$BAILEY_HOME/.env
  if [[ ! -f $settings ]]; then settings=/dev/null; fi
  docker compose --project-directory "$ROOT" --env-file "$settings" -f "$ROOT/compose.yaml" "$@"
}

# The services stop before the audit log that they tell what they did last, and the broker after those that ask it. All at once, audit would be
# gone first. What does not stop so is left to what comes next.
stop_in_order() {
  local running
  mapfile -t running < <(compose --profile '*' ps --services --status running | grep -vxE 'audit|broker')
  if ((${#running[@]})); then compose --profile '*' stop --timeout 6 "${running[@]}" || true; fi
  compose stop --timeout 6 broker || true
}

# It has a shell and a tar, and is there wherever the stack ever ran.
TOOLS_IMAGE=bailey/base-tools:current

need_tools() {
  docker image inspect "$TOOLS_IMAGE" >/dev/null 2>&1 || "$ROOT/deploy/base-images.sh" </dev/null
}

# as_root MOUNT COMMAND...: what belongs to the services' uids, only root reads or removes. Whoever may use Docker may be it, in a container that
# has the mount and nothing else. What it prints may be a key, so the engine logs nothing of it.
as_root() {
  local mount=$1
  shift
  docker run --rm --interactive --pull never --log-driver none --user 0:0 --network none --read-only --cap-drop ALL --cap-add CHOWN --cap-add DAC_OVERRIDE \
    --cap-add FOWNER --cap-add FSETID --security-opt no-new-privileges --volume "$mount" "$TOOLS_IMAGE" "$@"
}

# The CLI inside the stack: management sockets, no network, gone afterwards.
cli() {
  compose run --rm --no-TTY --quiet-pull cli "$@"
}

# The CLI on the host: everyday verbs over the gateway's API.
bailey() {
  "$BUILD/bin/bailey" --home "$BAILEY_HOME" "$@"
}

# Where people and programs come in.
way_in() {
  if [[ $COMPOSE_PROFILES == tailnet ]]; then
    echo "https://$BAILEY_HOSTNAME.<your tailnet>.ts.net"
  else
    echo "https://localhost:$BAILEY_PORT (CA: $BAILEY_HOME/config/ca.pem)"
  fi
}

# step NAME TITLE ADVICE COMMAND...: one line with the time it took; the output goes to a log. The last line of the output that starts
# with "= " is shown beside the time. Steps are scripts of their own, because `set -e` does not reach into a tested function.
step() {
  local name=$1 title=$2 advice=$3 began=$SECONDS pid status=0 note
  shift 3
  local log=$BUILD/log/$name.log
  mkdir -p "$BUILD/log"
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  if [[ -t 1 ]]; then
    while kill -0 "$pid" 2>/dev/null; do
      printf '\r  %-36s %4ss ' "$title" "$((SECONDS - began))"
      sleep 0.2
    done
    printf '\r'
  fi
  wait "$pid" || status=$?
  note=$(sed -n 's/^= //p' "$log" | tail -n 1)
  if ((status == 0)); then
    printf '  %-36s %4ss  %s\n' "$title" "$((SECONDS - began))" "${note:-ok}"
    return
  fi
  printf '  %-36s %4ss  failed\n\n' "$title" "$((SECONDS - began))"
  tail -n 15 "$log" | sed 's/^/    /'
  printf '\n%s\nThe whole log: %s\n' "$advice" "$log"
  exit 1
}
