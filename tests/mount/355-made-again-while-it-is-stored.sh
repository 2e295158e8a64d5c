#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A removed disk is made again, or reverted, while its last snapshot is pending, and at the moment at which that snapshot is stored: its
# image stays, and its history has what it had. If it is not made again, its image goes.
set -eu
. "$(dirname "$0")/lib.sh"
expect_errors
random_file "$T/a" $((3 << 20))
random_file "$T/b" $((3 << 20))
touch "$T/pause"
export VARVE_FAULT_PAUSE=$T/pause
is_failed() { [ "$(xattr "$1" state)" = failed ]; }
images() { find "$T/state/disks" -mindepth 1 -maxdepth 1 ! -name '.ready-*' | wc -l; }
no_image() { [ "$(images)" = 0 ]; }
is_empty() { [ "$(find "$T/state/disks" -name 'layer-*' ! -name '*.*' ! -path '*/.ready-*' | sort -V | tail -1)" != "$1" ]; }
start_with() { export VARVE_FAULT=$1; start_varve; unset VARVE_FAULT; }
failed_snapshot() {     # DISK: copies into it; the first attempt to store that fails, and `varve wait` asks for the next one
    run cp "$T/a" "$1"
    snap=$(newest "$1")
    eventually 20 settled "$snap"
    is_failed "$snap" || skip "this build has no fault points"
}
settled() { [ "$(xattr "$1" state)" != pending ]; }
check_all() {   # DISK
    equals "$(snap_count "$1")" 2
    same "$T/a" "$snap"
    same "$T/b" "$1"
    same "$T/b" "$(newest "$1")"
}

for point in store.publish.rename agent.finish.before_pointers; do
    disk=$MNT/$point.img
    start_with "$point:1=5,names.create.prepared:2=pause"
    failed_snapshot "$disk"
    run rm "$disk"
    layer=$(find "$T/state/disks" -name 'layer-*' ! -name '*.*' ! -path '*/.ready-*' | sort -V | tail -1)
    run cp "$T/b" "$disk" &
    copy=$!
    eventually 20 is_empty "$layer"
    "$VARVE" wait --timeout 60 "$MNT" &
    waiter=$!
    for _ in $(seq 30); do no_image || sleep 0.1; done      # the end of the publication would take the image away now
    rm "$T/pause"
    wait "$copy" || fail "the copy onto the name of the removed disk"
    wait "$waiter" || fail "varve wait"
    run "$VARVE" wait --timeout 60 "$MNT"
    check_all "$disk"
    stop_varve
    start_varve
    check_all "$disk"
    run rm "$disk"
    eventually 10 no_image
    stop_varve
    touch "$T/pause"
done

for point in store.publish.rename agent.finish.before_pointers; do
    # A revert finds the disk removed and its second snapshot pending.
    start_with "$point:2=5"
    disk=$MNT/reverted.$point.img
    run cp "$T/b" "$disk"
    run "$VARVE" wait --timeout 60 "$MNT"
    first=$(newest "$disk")
    failed_snapshot "$disk"
    run rm "$disk"
    run "$VARVE" revert "$first"
    same "$T/b" "$disk"
    run "$VARVE" wait --timeout 60 "$MNT"
    equals "$(snap_count "$disk")" 2 "snapshots after a revert of a removed disk"
    same "$T/a" "$snap"
    stop_varve
    start_varve
    same "$T/b" "$disk"
    equals "$(snap_count "$disk")" 2 "snapshots after a start"
    run rm "$disk"
    eventually 10 no_image
    stop_varve

    # Nobody makes it again.
    start_with "$point:1=5"
    disk=$MNT/gone.$point.img
    failed_snapshot "$disk"
    run rm "$disk"
    equals "$(images)" 1
    run "$VARVE" wait --timeout 60 "$MNT"
    eventually 10 no_image
    same "$T/a" "$snap"
    stop_varve
done
run "$VARVE" verify "$T/store"
