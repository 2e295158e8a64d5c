#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# cp -b, mv -b and install -b, again and again: the backup name is a disk with a history from the second time on. These programs take
# EEXIST for "somebody else was quicker", and would try without end.
set -eu
. "$(dirname "$0")/lib.sh"
CASE_TIMEOUT=20

start_varve
run mkdir "$MNT/vm" "$T/in"
for p in cp install mv; do
    disk=$MNT/vm/$p.img
    for i in 1 2 3 4; do
        random_file "$T/$p.$i" 1000000
        cp "$T/$p.$i" "$T/in/file"
        run $p -b "$T/in/file" "$disk"
        same "$T/$p.$i" "$disk"
        [ $i -eq 1 ] || same "$T/$p.$((i - 1))" "$disk~"
    done
    run "$VARVE" wait "$MNT"
    # Each name keeps what it has had. The first backup took the disk with its history; the disk is another one since.
    [ "$(snap_count "$disk")" -ge 3 ] || fail "$p: $(snap_count "$disk") snapshots of the disk"
    [ "$(snap_count "$disk~")" -ge 3 ] || fail "$p: $(snap_count "$disk~") snapshots of the backup"
    same "$T/$p.4" "$(newest "$disk")"
    same "$T/$p.3" "$(newest "$disk~")"
done
stop_varve
start_varve
for p in cp install mv; do
    same "$T/$p.4" "$MNT/vm/$p.img"
    same "$T/$p.3" "$MNT/vm/$p.img~"
done
run "$VARVE" verify "$T/store"
stop_varve
