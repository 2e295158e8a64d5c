#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What is removed while a program holds it (its working directory, an open directory that another one replaces, an open disk or snapshot)
# stays for that program, as on any filesystem: fstat, fchmod and the like are no ESTALE, an open disk can be opened again through /proc.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
held() { run python3 -ISB "$(dirname "$0")/held.py" "$@"; }
start_varve
mkdir "$T/plain" "$MNT/vm"
held "$T/plain" >"$T/elsewhere"
held "$MNT/vm" >"$T/here"
diff "$T/elsewhere" "$T/here" || fail "removed things are not what they are on the filesystem of $T"

random_file "$T/a" 3000000
cp "$T/a" "$MNT/disk.img"
for stored in "" yes; do
    run "$VARVE" snapshot --label one "$MNT/disk.img" >/dev/null
    [ -z "$stored" ] || run "$VARVE" wait "$MNT"
    held "$MNT" disk@one.img >"$T/here"
    [ ! -e "$MNT/disk@one.img" ] || fail "the snapshot is still there"
    grep -q "fstat -> -r.* links=0 0:0 size=whole" "$T/here" || fail "$(cat "$T/here")"
    [ -n "$stored" ] || continue        # one that was never stored has no data any more
    grep -q "read -> True" "$T/here" || fail "$(cat "$T/here")"
    grep -q "seek -> 0" "$T/here" || fail "$(cat "$T/here")"
done
stop_varve
