#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 of the daemon at each step between an acknowledged copy and its stored snapshot: after the next start it gets stored
# by itself, once, whole, and as the good backup that it is.
set -eu
. "$(dirname "$0")/lib.sh"
expect_errors
points="dedup.1a.segment dedup.2b.after_seal dedup.3b.after_delta dedup.4b.before_publish snapshot.commit.before_rename
        store.publish.after_rename store.publish.after_fsync dedup.4b.after_publish agent.finish.before_pointers agent.finish.after_pointers"
random_file "$T/a" 5000000
start_varve
run mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
run cp "$T/a" "$disk"
run "$VARVE" wait "$disk"
stop_varve

made=1
for point in $points; do
    # The round waits at its first segment until the copy is through, and is then killed at the point.
    touch "$T/pause"
    at=1; [ "$point" != dedup.1a.segment ] || at=2
    export VARVE_FAULT=dedup.1a.segment:1=pause,$point:$at=kill VARVE_FAULT_PAUSE=$T/pause
    start_varve
    random_file "$T/new" 3000000
    dd if="$T/new" of="$T/a" bs=1M seek=1 conv=notrunc status=none
    run dd if="$T/new" of="$disk" bs=1M seek=1 conv=notrunc status=none
    made=$((made + 1))
    snap=$(newest "$disk")
    equals "$(snap_count "$disk")" $made
    eventually 10 test "$(xattr "$snap" flags)" = ""
    [ "$(xattr "$snap" state)" = pending ] || skip "this build has no fault points"
    rm "$T/pause"
    killed_at "$point"

    start_varve
    equals "$(snap_count "$disk")" $made "snapshots after a kill at $point"
    run "$VARVE" wait --timeout 20 "$disk"
    equals "$(xattr "$snap" state)" stored "after a kill at $point"
    equals "$(xattr "$snap" flags)" "" "after a kill at $point"
    same "$T/a" "$snap"
    same "$T/a" "$disk"
    stop_varve
done
run "$VARVE" verify "$T/store"
equals "$(find "$T/store/snapshots" -name '*.rcp' | wc -l)" $made "recipes"
