#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# STORE is put back from an older copy while STATE is newer: a live image that points to what STORE no longer has is an error for ever,
# after more backups and starts too, and never shows the bytes of another disk. What the copy has stays good, and so does what comes after.
# Log, `status` and `health` say it and name the disk until it is whole again.
set -eu
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/put_back.sh"
need jq

told() { "$VARVE" status --json "$MNT" 2>/dev/null | jq -c ".[0].put_back${1:-}"; }
said() {        # LOST DISKS, beside a.img
    equals "$(told .lost_disks)" 1
    equals "$(told '.disks[0] | [.path, .segments, .lost_segments]')" '["vm/a.img",3,3]'
    must_fail "LOST vm/a.img: 3 of 3 segments" "$VARVE" status "$MNT"
    must_fail "put back from an older copy" "$VARVE" health "$MNT"
}

one() {     # BACKUPS of the disk after the copy was made
    local n dir later=()
    echo "put back over $1 backups"
    for n in $(seq 2 "$1"); do later+=("$T/d$((n % 2 + 1))"); done
    newer_than_copy "$T/d1" "$T/d2" "${later[@]}"
    put_back
    start_varve
    grep -q "ERROR agent: $T/store is older than this host's state" "$T/daemon.log" || fail "the log does not say it"
    grep -q "ERROR agent: vm/a.img: 3 of 3 segments" "$T/daemon.log" || fail "the log does not name the disk"
    said
    lost "$MNT/vm/a.img"
    must_fail "Input/output error" cmp "$MNT/vm/a.img" "$T/d2"
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
    equals "$(told .lost_disks)" 0
    stop_varve
    start_varve
    equals "$(told)" null "after the start that finds all whole"
    stop_varve
    run "$VARVE" verify "$T/store"
    rm -rf "$T/store" "$T/store.old" "$T/state"
    INIT_DONE=
}

one 1
one 6
