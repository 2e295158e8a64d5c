#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# STORE is put back from an older copy while STATE is newer: a live image that points to what STORE no longer has is an error for ever,
# after more backups and starts too, and never shows the bytes of another disk. What the copy has stays good, and so does what comes after.
# Log, `status` and `health` say it and name the disk until it is whole again.
set -eu
. "$(dirname "$0")/lib.sh"
need jq
expect_errors
for i in 1 2 3 4; do random_file "$T/d$i" 5000000; done

# Its content is one of no disk's: an error, at each of the segments.
lost() {
    local i
    for i in 0 1 2; do must_fail "Input/output error" dd if="$1" of="$T/got" bs=1M skip=$((i * 2)) count=1 iflag=direct; done
    must_fail "Input/output error" cmp "$1" "$T/d2"
}

put_back() { "$VARVE" status --json "$MNT" 2>/dev/null | jq -c ".[0].put_back${1:-}"; }
said() {        # LOST DISKS, beside a.img
    equals "$(put_back .lost_disks)" 1
    equals "$(put_back '.disks[0] | [.path, .segments, .lost_segments]')" '["vm/a.img",3,3]'
    must_fail "LOST vm/a.img: 3 of 3 segments" "$VARVE" status "$MNT"
    must_fail "put back from an older copy" "$VARVE" health "$MNT"
}

one() {     # BACKUPS of the disk after the copy was made
    local n dir snap
    echo "put back over $1 backups"
    start_varve
    run mkdir "$MNT/vm" "$MNT/other"
    run cp "$T/d1" "$MNT/vm/a.img"
    run "$VARVE" wait "$MNT"
    stop_varve
    cp -a "$T/store" "$T/store.old"
    start_varve
    run cp "$T/d2" "$MNT/vm/a.img"
    run "$VARVE" wait "$MNT"
    snap=$(newest "$MNT/vm/a.img")
    for n in $(seq 2 "$1"); do
        run cp "$T/d$((n % 2 + 1))" "$MNT/vm/a.img"
        run "$VARVE" wait "$MNT"
    done
    run "$VARVE" revert "$snap"
    stop_varve
    rm -rf "$T/store"
    cp -a "$T/store.old" "$T/store"
    start_varve
    grep -q "ERROR agent: $T/store is older than this host's state" "$T/daemon.log" || fail "the log does not say it"
    grep -q "ERROR agent: vm/a.img: 3 of 3 segments" "$T/daemon.log" || fail "the log does not name the disk"
    said
    lost "$MNT/vm/a.img"
    for dir in vm other; do
        for n in 1 2; do
            run cp "$T/d$((n % 2 + 3))" "$MNT/$dir/n$n.img"
            run "$VARVE" wait "$MNT"
            lost "$MNT/vm/a.img"
        done
    done
    stop_varve
    start_varve
    lost "$MNT/vm/a.img"
    said
    equals "$(snap_count "$MNT/vm/a.img")" 1
    same "$T/d1" "$(newest "$MNT/vm/a.img")"
    for dir in vm other; do for n in 1 2; do same "$T/d$((n % 2 + 3))" "$MNT/$dir/n$n.img"; done; done
    # A new backup of the disk makes it whole.
    run cp "$T/d4" "$MNT/vm/a.img"
    run "$VARVE" wait "$MNT"
    same "$T/d4" "$MNT/vm/a.img"
    same "$T/d4" "$(newest "$MNT/vm/a.img")"
    run "$VARVE" status "$MNT" >"$T/status"
    equals "$(put_back .lost_disks)" 0
    stop_varve
    start_varve
    equals "$(put_back)" null "after the start that finds all whole"
    stop_varve
    run "$VARVE" verify "$T/store"
    rm -rf "$T/store" "$T/store.old" "$T/state"
    INIT_DONE=
}

one 1
one 6
