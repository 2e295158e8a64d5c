#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A snapshot is removed at the moment at which its attempt fails: no row of it is left, and nobody waits for it.
set -eu
. "$(dirname "$0")/lib.sh"
expect_errors
random_file "$T/a" $((3 << 20))
touch "$T/pause"
export VARVE_FAULT=agent.finish.before_pointers:1=5,agent.failed.before_row:1=pause VARVE_FAULT_PAUSE=$T/pause
start_varve
unset VARVE_FAULT
run mkdir "$MNT/vm"
run cp "$T/a" "$MNT/vm/disk.img"
sleep 2
snap=$(newest "$MNT/vm/disk.img")
[ "$(xattr "$snap" state)" != stored ] || skip "this build has no fault points"
rm "$snap" &
removal=$!
sleep 2
rm "$T/pause"
wait "$removal" || fail "rm"
run "$VARVE" wait --timeout 20 "$MNT"
equals "$(snap_count "$MNT/vm/disk.img")" 0
stop_varve
run "$VARVE" verify "$T/store"
