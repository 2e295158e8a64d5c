#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# While a round takes long, the list of a disk's pending snapshots does not grow with each close: of those that nobody asked for, that
# nobody reads and that are not being stored, some are merged into the next. Who waits for one of them waits for its data.
set -eu
. "$(dirname "$0")/lib.sh"

touch "$T/pause"
export VARVE_FAULT=dedup.4b.before_publish:1=pause VARVE_FAULT_PAUSE=$T/pause
start_varve
mkdir "$MNT/vm"
disk=$MNT/vm/disk.img
close_with() { echo "$1" >"$disk"; }    # one close, one snapshot
close_with first
for i in $(seq 10); do close_with "early $i"; done
exec 7<"$(newest "$disk")"
for i in $(seq 10); do close_with "before $i"; done
touch "$MNT/vm/disk@keep.img"
"$VARVE" wait "$disk" >"$T/wait.log" 2>&1 &
waiter=$!
for i in $(seq 80); do close_with "later $i"; done
equals "$(cat "$MNT/vm/disk@keep.img")" "before 10"
equals "$(cat <&7)" "early 10"
exec 7<&-
[ "$(snap_count "$disk")" -le 68 ] || fail "$(snap_count "$disk") snapshots are pending"
[ "$(snap_count "$disk")" -ge 60 ] || fail "only $(snap_count "$disk") snapshots are left"
equals "$(cat "$(newest "$disk")")" "later 80"
files=$(find "$T/state/disks" -name 'layer-*' | wc -l)
[ "$files" -le 600 ] || fail "$files files of layers in STATE"
kill -0 "$waiter" || fail "the wait ended before anything was stored"

# Each state that is left is one that was closed, and they are in their order.
last=0
for s in $(snaps "$disk"); do
    case $(cat "$s") in later\ *) n=$(cut -d' ' -f2 "$s"); [ "$n" -gt "$last" ] || fail "$s: later $n behind later $last"; last=$n;; esac
done

count=$(snap_count "$disk")
rm "$T/pause"
wait "$waiter" || fail "the wait failed: $(cat "$T/wait.log")"
run "$VARVE" wait "$disk"
equals "$(snap_count "$disk")" "$count"
equals "$(xattr "$(newest "$disk")" state)" stored
equals "$(cat "$(newest "$disk")")" "later 80"
equals "$(cat "$MNT/vm/disk@keep.img")" "before 10"
stop_varve
