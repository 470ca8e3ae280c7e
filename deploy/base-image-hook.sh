#!/bin/sh
# Finishes the root of a base image at $1: what package scripts would have done, less what a plugin never reads.
set -eu
root=${1%/}

rm -rf "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/info "$root"/usr/share/locale "$root"/usr/share/lintian "$root/hook"
mkdir -p "$root/etc" "$root/home/plugin" "$root/state" "$root/tmp"
# A new state volume takes over owner and mode of the folder it is mounted on, and each plugin has a uid of its own. A volume is one plugin's alone;
# without one, what lies here is read-only, or under a tmpfs.
chmod 0777 "$root/home/plugin" "$root/state"
[ -s "$root/etc/passwd" ] || echo 'root:x:0:0::/:/nonexistent' >"$root/etc/passwd"
# ssh runs for nobody who is not listed; which uid a plugin gets is known when it is locked.
if [ -x "$root/usr/bin/ssh" ]; then seq 1000 59999 | sed 's|.*|u&:x:&:&::/home/plugin:/bin/false|' >>"$root/etc/passwd"; fi
[ -s "$root/etc/group" ] || echo 'root:x:0:' >"$root/etc/group"

if [ -x "$root/bin/dash" ] && [ ! -e "$root/bin/sh" ]; then ln -s dash "$root/bin/sh"; fi
if [ -x "$root/usr/bin/gawk" ] && [ ! -e "$root/usr/bin/awk" ]; then ln -s gawk "$root/usr/bin/awk"; fi
if [ -d "$root/usr/share/ca-certificates/mozilla" ]; then
  mkdir -p "$root/etc/ssl/certs"
  cat "$root"/usr/share/ca-certificates/mozilla/*.crt >"$root/etc/ssl/certs/ca-certificates.crt"
fi

# A cell cannot write byte code, so each start would compile the standard library again. Hashed, not stamped: two runs are alike.
for python in "$root"/usr/bin/python3.[0-9]*; do
  [ -x "$python" ] || continue
  name=${python##*/}
  chroot "${root:-/}" "/usr/bin/$name" -m compileall -q -j 0 --invalidation-mode unchecked-hash "/usr/lib/$name" || exit 1
done
