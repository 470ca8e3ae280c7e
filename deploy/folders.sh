#!/bin/sh
# folders.sh <target>: the empty folders that volumes are first mounted over. A new volume takes mode and owner from them, and only a
# folder inside what COPY copies keeps its mode: hence one parent each.
set -eu
folder() { mkdir -p "$2" && chmod "$1" "$2"; }
folder 0700 "$1/data/data"                  # A service's own files.
folder 0750 "$1/audit/data"                 # The log: the CLI's group verifies it.
folder 0710 "$1/docker/docker"              # Sockets: the group of the one client may pass through.
folder 0755 "$1/egress/egress"              # Every holder may pass: its uid and a signed decision are what counts.
folder 0710 "$1/broker/broker"
folder 0710 "$1/socket-proxy/socket-proxy"
folder 0700 "$1/state/state"
