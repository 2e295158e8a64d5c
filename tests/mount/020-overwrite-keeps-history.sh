#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every copy onto a disk adds a version; none of the earlier ones changes.
set -eu
. "$(dirname "$0")/lib.sh"

start_varve
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
random_file "$T/v1" 7000000
cp "$T/v1" "$T/v2"; dd if=/dev/urandom of="$T/v2" bs=4096 seek=700 count=9 conv=notrunc status=none
head -c 5000000 "$T/v2" >"$T/v3"                        # shorter
cat "$T/v3" "$T/v1" >"$T/v4"                            # longer
for v in 1 2 3 4; do
    run cp "$T/v$v" "$disk"
    equals "$(snap_count "$disk")" "$v"
    same "$T/v$v" "$disk"
done
check_versions() {
    local v=1
    snaps "$disk" >"$T/list"
    while read -r s; do same "$T/v$v" "$s"; v=$((v + 1)); done <"$T/list"
    equals "$v" 5 "names sort in the order in which the versions were made"
}
check_versions
run "$VARVE" wait "$MNT"
check_versions
for s in $(snaps "$disk"); do equals "$(xattr "$s" state)" stored; equals "$(xattr "$s" flags)" ""; done

# In place: only the changed part is new.
dd if=/dev/urandom of="$T/v4" bs=4096 seek=11 count=3 conv=notrunc status=none
run dd if="$T/v4" of="$disk" bs=4096 skip=11 seek=11 count=3 conv=notrunc status=none
same "$T/v4" "$disk"
equals "$(snap_count "$disk")" 5
same "$T/v4" "$(newest "$disk")"

# A truncating open without a write: no version of an empty image, and the old ones stay.
: >"$disk"
equals "$(stat -c %s "$disk")" 0
equals "$(snap_count "$disk")" 5
has_flag "$disk" rewriting || fail "a truncated disk is not marked"
run cp "$T/v1" "$disk"
equals "$(snap_count "$disk")" 6
has_flag "$disk" rewriting && fail "the mark stays after a clean copy"

# rm of the disk keeps its history, and the same name takes it up again.
run rm "$disk"
[ ! -e "$disk" ] || fail "the disk is still there"
equals "$(snap_count "$disk")" 6
must_fail "not empty" rmdir "$MNT/vm"
run cp "$T/v2" "$disk"
equals "$(snap_count "$disk")" 7
same "$T/v2" "$(newest "$disk")"
run "$VARVE" wait "$MNT"
for s in $(snaps "$disk"); do run rm "$s"; done
equals "$(snap_count "$disk")" 0
same "$T/v2" "$disk"
stop_varve
