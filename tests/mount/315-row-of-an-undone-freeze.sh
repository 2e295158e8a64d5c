#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A power loss may undo a freeze whose catalog row is on the disk already; the next freeze of that disk then gets the same number.
# The row of the one that is gone must go too: else a snapshot is listed that nobody can read, and `varve wait` waits for ever.
set -eu
. "$(dirname "$0")/lib.sh"
need sqlite3
random_file "$T/a" 3000000
start_varve
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
run cp "$T/a" "$disk"
run "$VARVE" wait "$MNT"
stop_varve

touch "$T/pause"
export VARVE_FAULT=dedup.1a.segment:1=pause VARVE_FAULT_PAUSE=$T/pause
start_varve
run dd if=/dev/urandom of="$disk" bs=1000 count=9 conv=notrunc status=none
equals "$(snap_count "$disk")" 2
[ "$(xattr "$(newest "$disk")" state)" = pending ] || skip "this build has no fault points"
kill_varve
unset VARVE_FAULT
# (An inode number is the first 8 bytes of the id / 4.) The same number, another snapshot: what is there when the first one was frozen, its row written, and power went.
columns=$(sqlite3 "$T/state/catalog.sqlite" "select group_concat(name) from pragma_table_info('snaps') where name not in ('id', 'ino', 'name_s')")
sqlite3 "$T/state/catalog.sqlite" "insert into snaps (id, ino, name_s, $columns)
    select x'0010000000000000ffffffffffffffff', 1024, name_s + 1, $columns from snaps where state = 1"
equals "$(sqlite3 "$T/state/catalog.sqlite" "select count(distinct seq) || ' ' || count(*) from snaps where state = 1")" "1 2"

start_varve
run "$VARVE" wait --timeout 20 "$MNT"
equals "$(snap_count "$disk")" 2
for s in $(snaps "$disk"); do
    run cmp -n 1 "$s" "$s"
    equals "$(xattr "$s" state)" stored
done
stop_varve
run "$VARVE" verify "$T/store"
if grep -q 'made anew' "$T/daemon.log"; then fail "the planted row did not pass as one: this case proves nothing"; fi
