#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The newest snapshot of a disk is removed before it is stored. Its state is kept before it would be lost, or when somebody asks, and has no
# flag then, because its writer had closed it; by itself no snapshot comes back: not after the close, not at a start, clean or after a kill.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
random_file "$T/a" $((3 << 20))
random_file "$T/b" $((3 << 20))
cp "$T/a" "$T/a.more"
printf 'more' | dd of="$T/a.more" bs=1 seek=1000 conv=notrunc status=none

# DISK gets the content a. A writer that lives on might go on: the snapshot waits for the end of the quiet time.
removed() {
    coproc WRITER { exec python3 -uc 'import shutil, sys; shutil.copyfile(sys.argv[1], sys.argv[2]); print(); sys.stdin.read()' "$T/a" "$1"; }
    read -r -u "${WRITER[0]}" || fail "not written"
    equals "$(xattr "$(newest "$1")" flags)" provisional
    run rm "$(newest "$1")"
    equals "$(snap_count "$1")" 0
    has_flag "$1" changed || fail "no snapshot has the state, and the disk does not say so"
    local pid=$WRITER_PID fd=${WRITER[1]}
    exec {fd}>&-
    wait "$pid"
}
no_more() {     # DISK: nothing of it is made, and nothing is lost
    equals "$(snap_count "$1")" 0 "snapshots of $1"
    same "$1" "$T/a"
    has_flag "$1" changed || fail "$1 is said to be unchanged"
}
one_good() {    # DISK CONTENT...: as many snapshots, of these contents, without flags
    local disk=$1 s; shift
    run "$VARVE" wait "$MNT"
    equals "$(snap_count "$disk")" $# "snapshots of $disk"
    for s in $(snaps "$disk"); do
        same "$s" "$1"
        equals "$(xattr "$s" flags)" "" "flags of $s"
        shift
    done
}

start_varve settle=20      # so that nothing is stored meanwhile
removed "$MNT/idle.img"
removed "$MNT/killed.img"
removed "$MNT/written.img"
removed "$MNT/open.img"
exec 5<>"$MNT/open.img"     # and writes nothing
exec 5>&-
for d in idle killed open written; do no_more "$MNT/$d.img"; done
stop_varve
start_varve settle=20
for d in idle killed open written; do no_more "$MNT/$d.img"; done
kill_varve
start_varve settle=0
for d in idle killed open written; do no_more "$MNT/$d.img"; done

# A stop and a kill later each way to a snapshot is still there.
printf 'more' | run dd of="$MNT/written.img" bs=1 seek=1000 conv=notrunc status=none
one_good "$MNT/written.img" "$T/a.more"
run cp "$T/b" "$MNT/killed.img"
one_good "$MNT/killed.img" "$T/a" "$T/b"
run "$VARVE" snapshot "$MNT/open.img" >/dev/null
one_good "$MNT/open.img" "$T/a"
run "$VARVE" snapshot "$MNT" >/dev/null
one_good "$MNT/idle.img" "$T/a"

# Removed by the one who still has it open for writing: what he writes then is in the snapshot of his close.
start=$(snap_count "$MNT/idle.img")
exec 5<>"$MNT/idle.img"
printf 'more' >&5
run sh -c ': >&5'       # a copy of the descriptor is closed, that is a flush
[ "$(snap_count "$MNT/idle.img")" = "$start" ] || run rm "$(newest "$MNT/idle.img")"
printf 'less' >&5
exec 5>&-
run "$VARVE" wait "$MNT"
same "$(newest "$MNT/idle.img")" "$MNT/idle.img"
equals "$(xattr "$(newest "$MNT/idle.img")" flags)" ""
stop_varve
