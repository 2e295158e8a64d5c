#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A disk of zeros is a disk: it gets a snapshot without a flag when it settles, and one that was asked for has no flag either. What is
# filled before it settles gets none for its zeros.
set -eu
. "$(dirname "$0")/lib.sh"
need python3
start_varve settle=3600
run mkdir "$MNT/vm"
truncate -s 50M "$T/zeros"
random_file "$T/data" 300000

run cp "$T/zeros" "$MNT/vm/waited.img"
run "$VARVE" wait --timeout 30 "$MNT"
equals "$(snap_count "$MNT/vm/waited.img")" 1
equals "$(stat -c %s "$(newest "$MNT/vm/waited.img")")" $((50 << 20))
run cp "$T/zeros" "$MNT/vm/asked.img"
run "$VARVE" snapshot --label asked "$MNT/vm/asked.img" >/dev/null
run cp "$T/zeros" "$MNT/vm/group.img"
run "$VARVE" snapshot "$MNT/vm" >/dev/null
run "$VARVE" wait --timeout 30 "$MNT"
equals "$(snap_count "$MNT/vm/asked.img")" 1
equals "$(snap_count "$MNT/vm/group.img")" 1
for s in "$MNT"/vm/*@*; do
    equals "$(xattr "$s" flags)" "" "$s"
    equals "$(xattr "$s" state)" stored "$s"
done

# Made empty, then filled by another program: only what is whole.
run truncate -s 1M "$MNT/vm/filled.img"
run dd if="$T/data" of="$MNT/vm/filled.img" conv=notrunc bs=64k status=none
run "$VARVE" wait --timeout 30 "$MNT"
equals "$(snap_count "$MNT/vm/filled.img")" 1
cmp -n 300000 "$T/data" "$(newest "$MNT/vm/filled.img")"

# Zeros over a disk that had data.
run cp "$T/zeros" "$MNT/vm/filled.img"
run "$VARVE" wait --timeout 30 "$MNT"
equals "$(snap_count "$MNT/vm/filled.img")" 2
equals "$(xattr "$(newest "$MNT/vm/filled.img")" flags)" ""
has_flag "$MNT/vm/filled.img" rewriting && fail "the mark stays after a complete copy"

# The end of the mount settles; an empty file is no disk yet.
run cp "$T/zeros" "$MNT/vm/last.img"
run touch "$MNT/vm/empty.img"
stop_varve
start_varve
run "$VARVE" wait --timeout 30 "$MNT"
equals "$(snap_count "$MNT/vm/last.img")" 1
equals "$(xattr "$(newest "$MNT/vm/last.img")" flags)" ""
equals "$(snap_count "$MNT/vm/empty.img")" 0
stop_varve

# By itself, after the quiet time.
start_varve settle=0.1
run cp "$T/zeros" "$MNT/vm/quiet.img"
eventually 20 more_snaps_than 0 "$MNT/vm/quiet.img"
stop_varve

# The daemon is killed before it has settled: at the start. A disk with a history may have been in the middle of something.
start_varve settle=3600
run cp "$T/zeros" "$MNT/vm/killed.img"
run cp "$T/zeros" "$MNT/vm/filled.img"
run truncate -s 3M "$MNT/vm/open.img"
exec 3<>"$MNT/vm/begun.img"
truncate -s 3M "/proc/$$/fd/3"
# A release may be on its way while its close has returned: what it leaves is durable once the next open has been answered.
for n in killed filled open; do python3 -c 'import os, sys; os.close(os.open(sys.argv[1], os.O_RDWR))' "$MNT/vm/$n.img"; done
for n in killed open begun; do equals "$(snap_count "$MNT/vm/$n.img")" 0 "$n"; done
kill_varve
exec 3>&-
start_varve settle=3600
run "$VARVE" wait --timeout 30 "$MNT"
for n in killed open; do
    equals "$(snap_count "$MNT/vm/$n.img")" 1 "$n"
    equals "$(xattr "$(newest "$MNT/vm/$n.img")" flags)" "" "$n"
    equals "$(xattr "$(newest "$MNT/vm/$n.img")" state)" stored "$n"
done
equals "$(snap_count "$MNT/vm/filled.img")" 3
equals "$(xattr "$(newest "$MNT/vm/filled.img")" flags)" partial
equals "$(snap_count "$MNT/vm/begun.img")" 0 "a disk whose writer had not closed it"
stop_varve
start_varve settle=3600
equals "$(snap_count "$MNT/vm/killed.img")" 1 "snapshots after another start"
stop_varve
check_log

# The freeze fails as it settles: it is tried again. What has data by then has had a close of its own.
expect_errors
export VARVE_FAULT=live.freeze.record:1=28
start_varve settle=0.1
unset VARVE_FAULT
run cp "$T/zeros" "$MNT/vm/failed.img"
eventually 30 more_snaps_than 0 "$MNT/vm/failed.img"
equals "$(xattr "$(newest "$MNT/vm/failed.img")" flags)" ""
run "$VARVE" wait --timeout 30 "$MNT"
equals "$(xattr "$(newest "$MNT/vm/failed.img")" state)" stored
stop_varve
run "$VARVE" verify "$T/store"
