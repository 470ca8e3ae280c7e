#!/usr/bin/env bash
# Removes this stack and nothing else: containers, networks, and images unless another stack may use them. Volumes, secrets and configuration
# only after a question (CONFIRM=yes answers it): without the age key the vault in any backup is lost.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# Without force: what a container still uses stays.
remove() {
  local image
  while read -r image; do docker rmi "$image" >/dev/null 2>&1 || echo "kept (in use): $image"; done
}

# Of a version there is one set of images on an engine, whichever checkout made it.
other_stacks() {
  local label='{{.Label "com.docker.compose.project"}}' listed
  listed=$(docker ps --all --filter label=com.docker.compose.project --format "$label" &&
    docker volume ls --filter label=com.docker.compose.project --format "$label") || fail "Docker does not list what other stacks have"
  sed -n 's/^bailey-//p' <<<"$listed" | { grep --line-regexp --fixed-strings --invert-match "$BAILEY_STACK" || true; } | sort --unique
}

# Files of the services in folders of theirs: where the caller is not root, a container of ours is.
remove_secrets() {
  local folders=(secrets .home.partial)
  rm -rf "${folders[@]/#/$BAILEY_HOME/}" 2>/dev/null || { need_tools && as_root "$BAILEY_HOME:/home" rm -rf "${folders[@]/#//home/}"; } ||
    fail "secrets/ has files of the services, which only root removes, or a Docker Engine that answers"
}

# Asked first, and once: the vault in its volume and the keys in secrets/ are worth nothing without each other.
answer=${CONFIRM:-}
if [[ -z $answer && -t 0 ]]; then
  read -r -p "Delete the vault and all data of the stack $BAILEY_STACK, and config/, secrets/ (age key, all keys), plugin-roots/first-party and .env in $BAILEY_HOME? [yes/no] " answer
fi
volumes=()
if [[ $answer == yes ]]; then volumes=(--volumes); fi

reachable=no
if docker version >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; then reachable=yes; fi
# Keys and volumes go together, or not at all.
if [[ $answer == yes && $reachable == no ]]; then fail "No Docker Engine with Compose answers, so the volumes cannot be removed; nothing was. Start it (deploy/engine.sh), then run this again."; fi

if [[ $reachable == yes ]]; then
  # Looked for before anything is gone.
  if [[ $answer == yes && $EUID != 0 && -e $BAILEY_HOME/secrets ]]; then need_tools; fi
  stop_in_order
  compose --profile '*' down --remove-orphans "${volumes[@]}" --timeout 6
  mapfile -t cells < <(docker ps --all --quiet --filter "label=bailey.stack=$BAILEY_STACK")
  if ((${#cells[@]})); then docker rm --force --volumes "${cells[@]}" >/dev/null; fi
  # What plugins keep is in volumes that the cells made, not Compose; and a load that broke off leaves its mark.
  if [[ $answer == yes ]]; then
    mapfile -t kept < <(docker volume ls --quiet --filter "label=bailey.stack=$BAILEY_STACK" --filter label=bailey.volume=state
      docker volume ls --quiet --filter "label=bailey.loading=$BAILEY_STACK")
    if ((${#kept[@]})); then docker volume rm "${kept[@]}" >/dev/null; fi
  fi
  if [[ $answer == yes ]]; then remove_secrets; fi
  # The lock names the sealed images: what is kept of the one keeps the other.
  if [[ $answer == yes ]]; then
    docker images --format '{{.Tag}}' bailey/sealed | while read -r tag; do
      # <stack>-<plugin>-<tree>; both names may hold hyphens, so the label says where the stack's ends.
      plugin=$(docker image inspect --format '{{index .Config.Labels "bailey.image.plugin"}}' "bailey/sealed:$tag")
      if [[ $tag == "$BAILEY_STACK-$plugin-"* && ${tag#"$BAILEY_STACK-$plugin-"} != *-* ]]; then echo "bailey/sealed:$tag"; fi
    done | remove
  fi
  # A second stack of a checkout leaves the images to the first, and one of two checkouts to the other.
  others=$(other_stacks)
  if [[ $BAILEY_HOME == "$ROOT" && -n $others ]]; then
    echo "Kept: the images, for other stacks: ${others//$'\n'/, }."
  elif [[ $BAILEY_HOME == "$ROOT" ]]; then
    docker images --filter label=bailey.image.content --format '{{.Repository}}:{{.Tag}}' | { grep ":$BAILEY_TAG\$" || true; } | remove
    docker images --filter label=bailey.image.base=true --format '{{.Repository}}:{{.Tag}}' | { grep '^bailey/base-' || true; } | remove
    docker image prune --force --filter label=bailey.image.content
  fi
fi
if [[ $BAILEY_HOME == "$ROOT" ]]; then rm -rf "${BUILD:?}"; fi

if [[ $answer == yes ]]; then
  remove_secrets
  rm -rf "$BAILEY_HOME"/{config,plugin-roots/first-party,.env}
else
  echo "Kept: the volumes, config/, secrets/, .env (CONFIRM=yes make clean deletes them)."
fi
