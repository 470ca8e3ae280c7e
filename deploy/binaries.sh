#!/usr/bin/env bash
# Static binaries into build/images/ and build/bin/: by cargo where there is one (PROFILE=release unless said otherwise). Without cargo
# it leaves a note, and images.sh compiles inside Docker.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
# Other uids read what is in an image.
umask 022

PROFILE=${PROFILE:-release}
cd "$ROOT"

rm -f "$BUILD/compile-in-docker"
mkdir -p "$BUILD/bin" "$BUILD/images/bin"
if ! cargo --version; then
  touch "$BUILD/compile-in-docker"
  echo "= no cargo here: inside Docker, with the images"
  exit
fi
if ! command -v cc >/dev/null; then
  if ((EUID != 0)) || ! command -v apt-get >/dev/null; then fail "cargo needs a C compiler and a static libc: install gcc and libc6-dev."; fi
  apt-get update
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends gcc libc6-dev
fi

packages=()
for image in "${IMAGES[@]}" echo; do packages+=(--package "$image"); done
# rustflags and target come from .cargo/config.toml: static, and no variable can forget it.
cargo build --locked --profile "$PROFILE" --bins "${packages[@]}"

target=$(cargo metadata --format-version 1 --no-deps --offline | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
folder=$PROFILE
if [[ $PROFILE == dev ]]; then folder=debug; fi
built=$target/x86_64-unknown-linux-gnu/$folder
total=0
for image in "${IMAGES[@]}" echo; do
  if ! cmp -s "$built/$image" "$BUILD/images/bin/$image"; then install -m 0555 "$built/$image" "$BUILD/images/bin/$image"; fi
  total=$((total + $(stat -c %s "$built/$image")))
done
deploy/folders.sh "$BUILD/images/folders"
install -m 0755 "$BUILD/images/bin/bailey" "$BUILD/images/bin/echo" "$BUILD/bin/"
echo "= $((${#IMAGES[@]} + 1)) static binaries, $((total >> 20)) MiB"
