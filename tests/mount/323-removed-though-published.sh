#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A snapshot failed when its recipe was in STORE already. Removed, or superseded by its writer, it is gone: a later start does not
# find it again.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
expect_errors
random_file "$T/a" $((5 << 20))
export VARVE_FAULT=agent.finish.before_pointers:1+=5
start_varve
unset VARVE_FAULT
recipes() { find "$T/store/snapshots" -name '*.rcp' | wc -l; }
is_failed() { [ "$(xattr "$snap" state)" = failed ]; }
without_rows() {    # the rows of the next mount are made of STORE
    stop_varve
    rm "$T/state/catalog.sqlite"*
    start_varve
}

run mkdir "$MNT/vm"
run cp "$T/a" "$MNT/vm/disk.img"
snap=$(newest "$MNT/vm/disk.img")
sleep 1
is_failed || sleep 4
[ "$(xattr "$snap" state)" != stored ] || skip "this build has no fault points"
eventually 10 is_failed
equals "$(recipes)" 1
run rm "$snap"
equals "$(recipes)" 0 "recipes after rm"
without_rows
[ ! -e "$snap" ] || fail "a start brought it back"
same "$T/a" "$MNT/vm/disk.img"
run "$VARVE" wait --timeout 30 "$MNT"       # its next snapshot, which must not meet the fault of the next part
stop_varve

# Its own writer goes on.
export VARVE_FAULT=agent.finish.before_pointers:1=5
start_varve
unset VARVE_FAULT
disk=$MNT/vm/second.img
exec 3<>"$disk"
printf again >&3
python3 -c 'import os; os.close(3)'     # a flush of the shared handle
snap=$(newest "$disk")
run "$VARVE" snapshot --label asked "$disk" >/dev/null 3>&-     # stores what is before it, provisional or not
eventually 10 is_failed
printf more >&3
exec 3>&-
run "$VARVE" wait --timeout 30 "$MNT"
[ ! -e "$snap" ] || fail "its writer went on, and it stays"
equals "$(snap_count "$disk")" 2
without_rows
equals "$(snap_count "$disk")" 2 "snapshots of a disk whose first one was superseded, after a start"
same "$disk" "$(newest "$disk")"
stop_varve

# The same of a disk that is gone: its image goes with the snapshot.
export VARVE_FAULT=agent.finish.before_pointers:1+=5
start_varve
unset VARVE_FAULT
run cp "$T/a" "$MNT/vm/other.img"
snap=$(newest "$MNT/vm/other.img")
eventually 10 is_failed
run rm "$MNT/vm/other.img"
run rm "$snap"
without_rows
equals "$(find "$MNT/vm" -name 'other*' | wc -l)" 0 "names of the removed disk after a start"
stop_varve
run "$VARVE" verify "$T/store"
