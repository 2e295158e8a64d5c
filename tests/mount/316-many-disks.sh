#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# More disks than the limit of open files that a shell gives lets be open at once.
set -eu
. "$(dirname "$0")/lib.sh"

make_disks() {
    local i
    for i in $(seq "$1"); do
        mkdir "$MNT/vm$i"
        echo "$i" >"$MNT/vm$i/disk.img"
    done
    run "$VARVE" wait "$MNT"
    for i in $(seq "$1"); do equals "$(cat "$MNT/vm$i/disk.img")" "$i"; done
}

# A low limit that may be raised is.
ulimit -Sn 200
start_varve
make_disks 100
if grep -q "limit of open files" "$T/daemon.log"; then fail "warns of a limit that it has raised"; fi
stop_varve

# One that may not: fewer disks stay open.
(
    rm -rf "$T/store" "$T/state"
    INIT_DONE=
    ulimit -Hn 512
    start_varve
    make_disks 100
    stop_varve
)

# One that is too low is said at the mount, with what raises it.
(
    INIT_DONE=1
    ulimit -Hn 200
    start_varve
    grep -q 'WARN mount: the limit of open files is 200 .* at least 256 .* LimitNOFILE= .* ulimit -n' "$T/daemon.log" || fail "does not say that 200 is too low"
    stop_varve
)
