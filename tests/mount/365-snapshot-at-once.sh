#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `cp image disk.img; varve snapshot DIRECTORY`: the close has been answered, its release may be on the way. The snapshot waits for that, and is
# not called partial. One of a disk that somebody keeps a copy of the closed descriptor of does not wait for ever.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
start_varve
run mkdir "$MNT/vm"
run python3 "$(dirname "$0")/snapshot_at_once.py" "$MNT/vm" "${ROUNDS:-120}"
exec 3>"$MNT/vm/held.img"
head -c 70000 "$VARVE" >&3          # its end closes a copy of the descriptor
run "$VARVE" snapshot --label held "$MNT/vm/held.img" 3>&- >/dev/null
equals "$(xattr "$MNT/vm/held@held.img" flags)" partial
exec 3>&-
run "$VARVE" wait "$MNT"
stop_varve
