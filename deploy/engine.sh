#!/usr/bin/env bash
# A Docker Engine that answers: checks the host, installs Debian's docker.io if there is none, starts it.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

check_host() {
  [[ $(uname -s) == Linux ]] || fail "Bailey runs on Linux hosts; this is $(uname -s)."
  [[ $(uname -m) == x86_64 ]] || fail "Bailey runs on x86_64 machines so far; this one is $(uname -m)."
}

answers() {
  timeout 10 docker version --format '{{.Server.Version}}' 2>/dev/null
}

# Waits for the engine. The socket appears before the engine answers, so only an answer counts.
await_answer() {
  local tries
  for ((tries = 0; tries < $1; tries++)); do
    if answers >/dev/null; then return 0; fi
    sleep 1
  done
  return 1
}

install() {
  ((EUID == 0)) || fail "No Docker Engine answers. Run this as root, or start Docker and join its group: usermod -aG docker $(id -un)"
  if ! command -v dockerd >/dev/null; then
    command -v apt-get >/dev/null || fail "No Docker Engine here, and this host has no apt: install Docker Engine 20.10 or newer."
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends docker.io iptables ca-certificates
  fi
}

# systemd, else the init script, else the engine itself (containers and rescue systems have neither).
start() {
  if [[ -d /run/systemd/system ]]; then
    systemctl enable --now docker && await_answer 60 && return
  elif command -v service >/dev/null && [[ -x /etc/init.d/docker ]]; then
    service docker start && await_answer 15 && return
  fi
  mkdir -p "$BUILD/log"
  setsid dockerd >"$BUILD/log/dockerd.log" 2>&1 </dev/null &
  await_answer 60 || fail "dockerd does not answer; it says: $(tail -n 3 "$BUILD/log/dockerd.log")"
}

check_host
if ! version=$(answers); then
  install
  start
  version=$(answers) || fail "the engine was started, but $DOCKER_SOCKET does not answer"
fi
major=${version%%.*}
rest=${version#*.}
if ((major < 20 || (major == 20 && 10#${rest%%.*} < 10))); then fail "Docker Engine $version is too old: 20.10 or newer is needed."; fi
echo "= Docker Engine $version"
