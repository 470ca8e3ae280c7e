#!/usr/bin/env bash
# One image per binary. What is labelled with the hash of its binary is not built again, so an unchanged stack keeps its image ids and
# `docker compose up` restarts nothing.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

TARGETS=("${IMAGES[@]}" plugin-binaries)

label_of() {
  docker image inspect --format '{{index .Config.Labels "bailey.image.content"}}' "bailey/$1:$BAILEY_TAG" 2>/dev/null || true
}

# A project of its own: Compose writes its name into the images, every container inherits it, and a probe (made from socket-proxy's image)
# must not count as a container of the stack.
#
# One at a time: the builder then keeps the binaries and is sent them once, not once for each image.
build() {
  COMPOSE_PARALLEL_LIMIT=1 docker compose --project-name bailey-images --project-directory "$ROOT/deploy" -f "$ROOT/deploy/images.yaml" build "$@"
}

all_present() {
  local target
  for target in "${TARGETS[@]}"; do
    docker image inspect "bailey/$target:$BAILEY_TAG" >/dev/null 2>&1 || return 1
  done
}

# take_out IMAGE PATH TARGET: copies a file out of an image that is never run.
take_out() {
  local id
  id=$(docker create "bailey/$1:$BAILEY_TAG")
  docker cp "$id:$2" "$3"
  docker rm "$id"
  chmod 0755 "$3"
}

# Hosts with nothing but Docker. Images of this version that are there already, carried over from another machine or compiled before, are
# taken as they are; COMPILE=yes compiles them anew.
if [[ -e $BUILD/compile-in-docker ]]; then
  note="present (tag $BAILEY_TAG)"
  if [[ ${COMPILE:-no} == yes ]] || ! all_present; then
    timeout 600 docker pull rust:1.95-slim-bookworm ||
      fail "There is no cargo here and no container registry answers: install Rust (rustup.rs) or connect Docker to a registry, then run this again."
    BINARIES=compiled build "${TARGETS[@]}"
    note="compiled inside Docker (tag $BAILEY_TAG)"
  fi
  take_out plugin-binaries /bin/echo "$BUILD/bin/echo"
  take_out bailey /bailey "$BUILD/bin/bailey"
  echo "= $note"
  exit
fi

recipe=$(cat "$ROOT"/deploy/{Dockerfile,folders.sh,images.yaml} | sha256sum)
stale=()
for target in "${TARGETS[@]}"; do
  binary=$target
  if [[ $target == plugin-binaries ]]; then binary='echo'; fi
  content=$( (echo "$recipe" && cat "$BUILD/images/bin/$binary") | sha256sum | cut -c 1-32)
  if [[ $(label_of "$target") == "$content" ]]; then continue; fi
  variable=${target^^}_CONTENT
  export "${variable//-/_}=$content"
  stale+=("$target")
done
if ((${#stale[@]} == 0)); then
  echo "= unchanged (tag $BAILEY_TAG)"
  exit
fi
build "${stale[@]}"
# What they replace has no name any more; only images of ours carry the label.
docker image prune --force --filter label=bailey.image.content
echo "= built ${#stale[@]} of ${#TARGETS[@]} (tag $BAILEY_TAG)"
